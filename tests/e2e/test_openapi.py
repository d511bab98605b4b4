"""Every REST route, against requests made up from its own OpenAPI description, and from outside of it."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode

from tests.support.server import ServerProcess
from tests.support.timing import scaled

pytestmark = pytest.mark.timeout(300)

UNTOUCHED = {("POST", "/api/v1/auth/password"), ("POST", "/api/v1/auth/logout")}
"""What would end the session the others are tried with."""


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["valid", "invalid"])
def test_no_request_gets_a_server_error_or_a_bare_answer(server: ServerProcess, mode: GenerationMode) -> None:
    token = server.login()
    with server.client(token) as rest:
        schema = schemathesis.openapi.from_dict(rest.get("/api/v1/openapi.json").json())
    schema.config.update(base_url=server.url)
    tried = 0
    for found in schema.get_all_operations():
        assert isinstance(found, Ok), found
        operation = found.ok()
        if (operation.method.upper(), operation.path) in UNTOUCHED:
            continue

        @settings(max_examples=12, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def attempt(case: schemathesis.Case[Any]) -> None:
            headers = {"Authorization": f"Bearer {token}"}
            answer = case.call(base_url=server.url, headers=headers, timeout=scaled(30))
            where = f"{case.method} {case.formatted_path}: {answer.status_code} {answer.text[:300]}"
            assert answer.status_code < 500, where
            if answer.status_code >= 400:
                assert answer.headers["content-type"][0].startswith("application/problem+json"), where
                assert set(answer.json()) >= {"title", "status", "detail", "code", "retryable"}, where

        try:
            attempt()
        except Exception as error:
            if "Cannot generate" in str(error) or "Unsatisfiable" in type(error).__name__:
                continue  # nothing invalid can be said to a route without parameters
            raise
        tried += 1
    assert tried > 15, "the routes were not tried"
    assert '"level":"error"' not in server.log(), server.log()[-3000:]
