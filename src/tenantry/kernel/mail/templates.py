"""Templates of mail: for each a text and an HTML file, by language; those of the deployment's own folder come first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from jinja2 import meta

from tenantry.kernel.mail.message import Message, one_line

if TYPE_CHECKING:
    from tenantry.kernel.mail.message import Branding

__all__ = ("DEFAULT_LANGUAGE", "TemplateProblem", "Templates")

DEFAULT_LANGUAGE = "en"
"""What there is of every template: where a language has none of its own, this is taken."""

_OWN = Path(__file__).parent / "templates"
_BRANDING = frozenset({"organization", "accent", "on_accent", "language"})
_SUFFIXES = (".txt", ".html")


class TemplateProblem(Exception):  # noqa: N818 - it is shown to whoever wrote the template
    """A template is missing or wrong: a mistake of whoever wrote it, which the text names with file and line."""


class Templates:
    """Templates in `<folder>/<language>/<name>.txt` and `.html`; the first folder that has a file wins.

    Text files hold the subject (`{% block subject %}`) and the text; HTML files are escaped. Both may extend
    `layout.txt` and `layout.html`, and use `organization`, `accent`, `on_accent`, `language` and the mail's arguments.
    """

    def __init__(self, folders: Iterable[Path], *, override: Path | None = None) -> None:
        searched = dict.fromkeys([*([] if override is None else [override]), *folders, _OWN])
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(list(searched)),
            autoescape=jinja2.select_autoescape(enabled_extensions=("html",), default_for_string=True, default=False),
            # A variable that is misspelt is an error, and no mail with a hole in it.
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            auto_reload=False,
        )

    def render(
        self, name: str, arguments: Mapping[str, Any], branding: Branding, *, language: str = DEFAULT_LANGUAGE
    ) -> Message:
        """Make a mail's subject, text and HTML.

        Raises:
            TemplateProblem: a template is missing, cannot be read, or uses what it is not given.
        """
        values = {
            "organization": branding.name,
            "accent": branding.accent,
            "on_accent": branding.on_accent,
            "language": language,
            **arguments,
        }
        # What people have written is one line wherever it stands: a name is not to begin a paragraph of its own.
        values = {key: one_line(value) if isinstance(value, str) else value for key, value in values.items()}
        try:
            text, html = (self._find(name + suffix, language) for suffix in _SUFFIXES)
            if (block := text.blocks.get("subject")) is None:
                raise TemplateProblem(f"{text.filename}: has no block 'subject'")
            subject = "".join(block(text.new_context(values)))
            return Message(subject=one_line(subject), text=text.render(values).strip() + "\n", html=html.render(values))
        except jinja2.TemplateError as error:
            raise TemplateProblem(_explain(name, error)) from None

    def check(self, name: str, arguments: Iterable[str]) -> None:
        """Look through the templates of a mail, without rendering them.

        Raises:
            TemplateProblem: one is missing or cannot be read, the text has no subject, or one uses what no mail of
                this name is given.
        """
        known = _BRANDING.union(arguments)
        for language in self._languages(name):
            for suffix in _SUFFIXES:
                try:
                    found = self._find(name + suffix, language)
                    source, path, _ = self._loader.get_source(self._environment, found.name or "")
                    unknown = meta.find_undeclared_variables(self._environment.parse(source)) - known
                except jinja2.TemplateError as error:
                    raise TemplateProblem(_explain(name, error)) from None
                if unknown:
                    raise TemplateProblem(
                        f"{path}: uses {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}"
                    )
                if suffix == ".txt" and "subject" not in found.blocks:
                    raise TemplateProblem(f"{path}: has no block 'subject'")

    @property
    def _loader(self) -> jinja2.FileSystemLoader:
        assert isinstance(self._environment.loader, jinja2.FileSystemLoader)  # noqa: S101 - made above
        return self._environment.loader

    def _languages(self, name: str) -> list[str]:
        return sorted(
            {DEFAULT_LANGUAGE}
            | {path.parent.name for folder in self._loader.searchpath for path in Path(folder).glob(f"*/{name}.*")}
        )

    def _find(self, file: str, language: str) -> jinja2.Template:
        return self._environment.select_template([f"{language}/{file}", f"{DEFAULT_LANGUAGE}/{file}"])


def _explain(name: str, error: jinja2.TemplateError) -> str:
    if isinstance(error, jinja2.TemplateSyntaxError):
        return f"{error.filename or name}:{error.lineno}: {error.message}"
    if isinstance(error, jinja2.TemplatesNotFound):
        return f"there is no template {error.templates[0]}"
    return f"{name}: {error.message}"
