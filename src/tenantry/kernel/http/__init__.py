"""HTTP around the application: errors as problem details, strict reading, bounded bodies, ids, headers, metrics."""

from tenantry.kernel.http.body import BodyBuffer
from tenantry.kernel.http.edge import Edge, edge
from tenantry.kernel.http.headers import PAGE_POLICY
from tenantry.kernel.http.problem import (
    PROBLEM_JSON,
    ErrorForm,
    ProblemController,
    answer_errors_in,
    exception_handlers,
    explain,
    problem_response,
    send_problem,
)
from tenantry.kernel.http.request import ApiRequest

__all__ = (
    "PAGE_POLICY",
    "PROBLEM_JSON",
    "ApiRequest",
    "BodyBuffer",
    "Edge",
    "ErrorForm",
    "ProblemController",
    "answer_errors_in",
    "edge",
    "exception_handlers",
    "explain",
    "problem_response",
    "send_problem",
)
