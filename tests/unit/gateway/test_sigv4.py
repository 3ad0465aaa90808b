"""The gateway's signatures are botocore's, byte for byte."""

import calendar
import time
from urllib.parse import quote

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from hypothesis import given
from hypothesis import strategies as st

from loam_gateway.adapters.sigv4 import Signer

SECRETS = st.text("abcXYZ019+/=", min_size=1, max_size=40)
TOKENS = st.none() | st.text("abcXYZ019+/=", min_size=1, max_size=80)
REGIONS = st.sampled_from(["us-east-1", "eu-central-1", "us-gov-west-1", "ap-southeast-4"])
HOSTS = st.sampled_from(["bedrock-runtime.us-east-1.amazonaws.com", "127.0.0.1:4566", "bedrock.local", "[::1]:8080"])
# Model ids are ARNs, ids with colons and dots, or whatever somebody has named an inference profile.
MODELS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=40)
NAMES = st.sampled_from(["Content-Type", "Accept", "x-amzn-bedrock-trace", "User-Agent", "X-Amzn-Trace-Id", "Expect"])
# A header is latin-1 without line breaks on the wire; runs of blanks in it count as one.
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)


CREDENTIALS = st.builds(ReadOnlyCredentials, SECRETS, SECRETS, TOKENS)


@given(CREDENTIALS, REGIONS, HOSTS, MODELS, st.dictionaries(NAMES, VALUES), st.binary(max_size=200))
def test_a_request_is_signed_as_botocore_signs_it(credentials, region, host, model, headers, body):
    path = f"/model/{quote(model, safe='')}/converse"
    theirs = AWSRequest("POST", f"http://{host}{path}", data=body, headers=headers)
    SigV4Auth(credentials, "bedrock", region).add_auth(theirs)
    moment = calendar.timegm(time.strptime(theirs.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ"))
    ours = Signer("bedrock", region).sign(credentials, host, path, headers, body, moment)
    assert ours == dict(theirs.headers.items())


def test_each_day_and_each_secret_has_a_signing_key_of_its_own():
    signer, day = Signer("bedrock", "us-east-1"), 86_400.0
    wanted = [("one", 0.0), ("one", day), ("two", day), ("one", 0.0)]
    made = [
        signer.sign(ReadOnlyCredentials("id", secret, None), "host", "/", {}, b"", now)["Authorization"]
        for secret, now in wanted
    ]
    assert len(set(made)) == 3
    assert made[0] == made[3]
