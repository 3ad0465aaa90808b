"""Names that the operator writes on what it makes, and by which it finds it again."""

from loam_operator.api.v1alpha1 import GROUP

FINALIZER = f"{GROUP}/finalizer"

TENANT = f"{GROUP}/tenant"
"""Label: whose it is. On a Namespace it hands the namespace to that tenant."""
OWNER_KIND = f"{GROUP}/owner-kind"
OWNER_NAME = f"{GROUP}/owner-name"
"""Labels: the object of ours that it was rendered from."""
PROMPT_TEMPLATE = f"{GROUP}/prompt-template"
"""Label of a ConfigMap in a tenant's namespace: "true" says that each of its keys is a prompt template."""
MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGED = {MANAGED_BY: "loam"}

OWNER_UID = f"{GROUP}/owner-uid"
"""Annotation: the owner's uid, so that nothing of a namesake is taken for ours."""
ORIGIN = f"{GROUP}/origin"
"""Annotation of a Namespace: Created by the operator (and deleted with its Tenant) or Adopted."""
INPUTS = f"{GROUP}/inputs"
"""Annotation of a pod template: hash of the Secrets and ConfigMaps that it uses, so that a change rolls the pods."""
KEY_HASH = f"{GROUP}/key-sha256"
KEY_CREATED = f"{GROUP}/key-created"
PREVIOUS_HASH = f"{GROUP}/previous-sha256"
PREVIOUS_EXPIRES = f"{GROUP}/previous-expires"
"""Annotations of a key's Secret: what the gateway is told, so that a killed operator goes on from here."""
