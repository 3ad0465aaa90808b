"""AgentTool and Agent: known, but not served yet, and their status says so."""

from loam_operator.api.v1alpha1 import Agent, AgentTool
from loam_operator.api.v1alpha1.agent import AgentStatus
from loam_operator.api.v1alpha1.agenttool import AgentToolStatus
from loam_operator.apply import status
from loam_operator.cluster import Ref
from loam_operator.decide.facts import READY, conditions, fails
from loam_operator.observe.world import read
from loam_operator.reconcile.context import DONE, Context, Outcome


async def reconcile(context: Context, ref: Ref) -> Outcome:
    """Say in the status that nothing is done with the object."""
    resource: Agent | AgentTool | None
    if ref.kind == Agent.definition.kind:
        resource = read(context.cluster, Agent, ref.name, ref.namespace)
    else:
        resource = read(context.cluster, AgentTool, ref.name, ref.namespace)
    if resource is None:
        return DONE
    fact = fails(READY, "NotServed", f"this version of Loam keeps {ref.kind}s but does not run them yet")
    generation = resource.metadata.generation
    whole = conditions([fact], resource.status.conditions, generation=generation, now=context.clock())
    said = AgentStatus if isinstance(resource, Agent) else AgentToolStatus
    await status.write(context.cluster, resource, said(observed_generation=generation, conditions=whole))
    return DONE
