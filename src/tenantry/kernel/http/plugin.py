"""Everything of this package that belongs inside the Litestar application, in one plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from litestar.plugins import InitPlugin

from tenantry.kernel.http.problem import ProblemController, exception_handlers
from tenantry.kernel.http.request import ApiRequest
from tenantry.kernel.metrics import metrics_endpoint
from tenantry.kernel.openapi import ClosedStructs, PublicOperations, openapi_config

if TYPE_CHECKING:
    from collections.abc import Callable

    from litestar.config.app import AppConfig

__all__ = ("HttpPlugin",)


class HttpPlugin(ClosedStructs, PublicOperations, InitPlugin):
    """Problem answers, strict reading, /problems, /metrics and /schema.

    What belongs outside of the application is `tenantry.kernel.http.edge`.
    """

    def __init__(
        self,
        *,
        title: str,
        version: str,
        description: str | None = None,
        amend: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        """`amend` is given every operation of the document, and adds what handlers do not say."""
        self._openapi = openapi_config(title, version, description=description, amend=amend)

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        app_config.exception_handlers = {**exception_handlers, **app_config.exception_handlers}
        app_config.request_class = ApiRequest
        app_config.openapi_config = self._openapi
        app_config.route_handlers += [ProblemController, metrics_endpoint]
        return app_config
