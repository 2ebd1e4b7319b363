"""What README.md shows of the demo is what the demo has."""

from __future__ import annotations

import json
import re

import msgspec

from tenantry.cli.demo import OPERATOR_EMAIL, owner_passwords
from tenantry.domain.teams.schemas import TeamCreate, TeamRead
from tenantry.kernel.schema import Page
from tests.docs.blocks import ROOT
from tests.world import TenantHandle

README = (ROOT / "README.md").read_text()
_LOGIN = re.compile(r"^  (\w+) +(\S+@\S+) +(\S+)  \((\w+)\)$", re.MULTILINE)


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_log_ins_are_the_demos() -> None:
    logins = [match.groups() for match in _LOGIN.finditer(README)]
    assert ("platform", OPERATOR_EMAIL) in {(where, email) for where, email, _, _ in logins}
    owners = {where: password for where, _, password, role in logins if role == "owner" and where != "platform"}
    assert owners == owner_passwords()
    shown = {(where, email): password for where, email, password, _ in logins}
    payload = json.loads(re.findall(r"-d '(\{\"tenant.*?\})'", README)[0])
    assert shown[payload["tenant"], payload["email"]] == payload["password"]


async def test_the_answers_are_what_the_api_answers(acme: TenantHandle) -> None:
    listed, refused = _blocks("json")
    assert msgspec.json.decode(listed, type=Page[TeamRead]).items[0].slug == "rockets"
    sent = json.loads(re.findall(r"-d '(\{\"name.*?\})'", README)[0])
    assert set(sent) <= {field.encode_name for field in msgspec.structs.fields(TeamCreate)}
    answer = (await acme.post("/api/teams", json=sent)).json()
    shown_ids = {name: json.loads(refused)[name] for name in ("requestId", "traceId")}
    assert json.loads(refused) == {**answer, **shown_ids}


async def test_the_api_key_opens_what_it_is_shown_to_open(acme: TenantHandle) -> None:
    _, sent = re.findall(r"-d '(\{\"name.*?\})'", README)
    made = await acme.post("/api/api-keys", json=json.loads(sent))
    assert made.status_code == 201, made.text
    answer = await acme.http.get("/api/teams", headers={"Authorization": f"Bearer {made.json()['key']}"})
    assert answer.status_code == 200
