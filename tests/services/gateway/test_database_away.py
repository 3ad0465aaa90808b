"""PostgreSQL goes away under a gateway that is serving, and comes back."""

from ._platform import eventually

PATHS = ("/v1/usage", "/v1/usage/budget", "/v1/auth/keys")


def test_while_postgres_is_away_callers_are_asked_to_come_back_and_then_served(gateway, tenant, postgres):
    caller = tenant.http()
    before = [caller.get(path).status_code for path in PATHS]
    postgres.stop()
    try:
        for path in PATHS * 3:
            told = caller.get(path)
            assert (told.status_code, told.json()["error"]["code"]) == (503, "unavailable"), told.text
            assert int(told.headers["retry-after"]) > 0
        assert gateway.put(f"/tenants/{tenant.name}", {"uid": tenant.uid, "models": []}).status_code == 503
    finally:
        postgres.start()
    eventually(lambda: [caller.get(path).status_code for path in PATHS] == before, "it did not come back")
    assert "unexpected error" not in gateway.log()
