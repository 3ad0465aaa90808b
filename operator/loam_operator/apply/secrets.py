"""Writing a key's Secret so that no key is ever lost: a new one only where none is, a next one only over the last."""

from loam_operator.cluster import Cluster, Manifest


async def write_key(cluster: Cluster, secret: Manifest, live: Manifest | None, *, replaces: bool) -> None:
    """Write the Secret of a key over what was seen as `live`.

    Raises ConflictError when another key was written since (`replaces`, or no Secret was there): look again.
    """
    if live is None:
        live = await cluster.create(secret)
    if replaces:
        secret = secret | {"metadata": secret["metadata"] | {"resourceVersion": live["metadata"]["resourceVersion"]}}
    # What was only created is applied too: only then do later edits and removals show.
    await cluster.apply(secret)
