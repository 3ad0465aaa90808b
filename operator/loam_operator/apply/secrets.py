"""Writing a key's Secret so that no key is ever lost: a new one only where none is, a next one only over the last."""

from loam_operator.cluster import Cluster, Manifest


async def write_key(cluster: Cluster, secret: Manifest, live: Manifest | None, *, replaces: bool) -> None:
    """Write the Secret of a key over what was seen as `live`.

    Raises ConflictError when another key was written since (`replaces`, or no Secret was there): look again.
    """
    if live is None:
        await cluster.create(secret)
    elif replaces:
        version = live["metadata"]["resourceVersion"]
        await cluster.apply(secret | {"metadata": secret["metadata"] | {"resourceVersion": version}})
    else:
        await cluster.apply(secret)
