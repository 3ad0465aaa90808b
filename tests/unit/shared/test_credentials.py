"""Keys are random and known by their hash; caller tokens are good for one service of one tenant, and not for long."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import KeySet, OctKey

from loam_shared import credentials
from loam_shared.credentials import Caller, InvalidCallerTokenError

KEY = credentials.new_signing_key()
KEYS = KeySet([KEY])
CALLER = Caller("acme", "key-1", "request-1", user="ada", scopes=("rag:query",), pipeline="handbook")


def signed(**changes: object) -> str:
    return credentials.sign_caller(CALLER, **({"service": "retrieval", "lifetime_seconds": 30, "key": KEY} | changes))


def test_the_caller_comes_back_whole() -> None:
    assert credentials.verify_caller(signed(), keys=KEYS, service="retrieval", tenant="acme") == CALLER


@pytest.mark.parametrize(("service", "tenant"), [("retrieval", "other"), ("agents", "acme")])
def test_a_token_for_another_service_or_tenant_is_refused(service: str, tenant: str) -> None:
    with pytest.raises(InvalidCallerTokenError):
        credentials.verify_caller(signed(), keys=KEYS, service=service, tenant=tenant)


def test_a_token_is_refused_after_its_deadline() -> None:
    with pytest.raises(InvalidCallerTokenError):
        credentials.verify_caller(signed(lifetime_seconds=-5), keys=KEYS)


def test_a_token_of_another_signer_is_refused() -> None:
    with pytest.raises(InvalidCallerTokenError):
        credentials.verify_caller(signed(key=credentials.new_signing_key()), keys=KEYS)


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")  # The attack needs the weak algorithm.
def test_an_unsigned_or_symmetrically_signed_token_is_refused() -> None:
    claims = {"iss": "loam-gateway", "exp": int(time.time()) + 30, "tenant": "acme", "key": "k", "rid": "r"}
    forged = jwt.encode({"alg": "HS256"}, claims, OctKey.import_key("a-secret-of-the-attackers-own-32b"), ["HS256"])
    unsigned = "eyJhbGciOiJub25lIn0." + forged.split(".")[1] + "."
    for token in (forged, unsigned):
        with pytest.raises(InvalidCallerTokenError):
            credentials.verify_caller(token, keys=KEYS)


@given(st.text(max_size=200))
def test_garbage_is_refused_and_never_crashes(text: str) -> None:
    with pytest.raises(InvalidCallerTokenError):
        credentials.verify_caller(text, keys=KEYS)


def test_keys_are_long_random_and_recognisable() -> None:
    keys = {credentials.new_api_key() for _ in range(1000)}
    assert len(keys) == 1000
    assert all(key.startswith("loam_") and len(key) == 48 for key in keys)


def test_a_hash_does_not_give_the_key_away_and_is_stable() -> None:
    key = credentials.new_api_key()
    assert credentials.hash_api_key(key) == credentials.hash_api_key(key)
    assert key[5:] not in credentials.hash_api_key(key)
