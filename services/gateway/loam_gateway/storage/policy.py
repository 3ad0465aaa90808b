"""Where a tenant's data lies, and what the tenant's identity may do there. Pure."""

import hashlib
import re
from collections.abc import Sequence
from typing import Any

from loam_shared.index import tenant_prefix

_IAM_NAME_LIMIT = 64
_BUCKET = re.compile(r"[a-z0-9][-.a-z0-9]{1,61}[a-z0-9]")


def prefix_of(tenant: str) -> str:
    """Everything of a tenant begins with this."""
    return tenant_prefix(tenant)


def user_of(tenant: str) -> str:
    """The IAM user of a tenant; a name too long for IAM is cut and told apart by a hash.

    No other user of the account is called so: one that is there already is taken for the tenant's, with its keys. The
    underscore, which no tenant's name has, keeps a cut name from being another tenant's whole one.
    """
    name = f"loam-tenant-{tenant}"
    if len(name) <= _IAM_NAME_LIMIT:
        return name
    return f"{name[: _IAM_NAME_LIMIT - 9]}_{hashlib.sha256(tenant.encode()).hexdigest()[:8]}"


def is_bucket(name: str) -> bool:
    """Whether that can be one bucket's name; a policy would take ``*`` and ``?`` for those of many."""
    return _BUCKET.fullmatch(name) is not None


def access_policy(bucket: str, prefix: str, source_buckets: Sequence[str]) -> dict[str, Any]:
    """Read, write and list below `prefix`, read and list the source buckets, and nothing else."""
    own = f"arn:aws:s3:::{bucket}"
    statements: list[dict[str, Any]] = [
        {
            "Effect": "Allow",
            "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"],
            "Resource": [f"{own}/{prefix}*"],
        },
        {
            "Effect": "Allow",
            "Action": ["s3:ListBucket"],
            "Resource": [own],
            "Condition": {"StringLike": {"s3:prefix": [prefix, f"{prefix}*"]}},
        },
    ]
    if source_buckets:
        arns = [f"arn:aws:s3:::{name}" for name in sorted(source_buckets)]
        statements.append(
            {
                "Effect": "Allow",
                "Action": ["s3:GetObject", "s3:ListBucket"],
                "Resource": [*arns, *(f"{arn}/*" for arn in arns)],
            }
        )
    return {"Version": "2012-10-17", "Statement": statements}
