"""Tenants' LanceDB databases in S3: a process may have hundreds of them open, with one bounded cache for all."""

import lancedb
import structlog

from loam_retrieval.adapters.index import Index
from loam_shared.contracts.admin import StorageGrant
from loam_shared.errors import UnavailableError
from loam_shared.index import database_uri, options_at

_log = structlog.get_logger()


class Databases:
    """Opens indexes. What is read of any of them is kept in the same cache, of `index_mib` and `metadata_mib` MiB."""

    def __init__(self, index_mib: int, metadata_mib: int) -> None:
        self._session = lancedb.Session(
            index_cache_size_bytes=index_mib << 20, metadata_cache_size_bytes=metadata_mib << 20
        )

    @property
    def cached_bytes(self) -> int:
        """How much is kept in memory of all of them together."""
        return int(self._session.size_bytes)

    async def index(self, grant: StorageGrant) -> Index:
        """The index in a tenant's storage, reached by the grant's login or, where it has none, the pod's identity.

        Raises UnavailableError when the storage cannot be reached, or not with that login.
        """
        uri = database_uri(grant.bucket, grant.prefix)
        try:
            database = await lancedb.connect_async(uri, storage_options=_options(grant), session=self._session)
        except (RuntimeError, OSError, ValueError) as error:  # LanceDB raises nothing more telling
            _log.warning("the tenant's storage cannot be read", uri=uri, reason=str(error)[:500])
            raise UnavailableError("the tenant's storage cannot be read now; ask again", retry_after=2) from error
        return Index(database)


def _options(grant: StorageGrant) -> dict[str, str]:
    options = options_at(grant.region, grant.endpoint)
    if grant.access_key_id and grant.secret_access_key:
        options |= {"aws_access_key_id": grant.access_key_id, "aws_secret_access_key": grant.secret_access_key}
    return options
