"""Words for the user on the node that works, as it works.

Like `services.py` it uses parts of ComfyUI without a promise of stability.
"""

from comfy_execution.utils import get_executing_context
from server import PromptServer


def say(text: str) -> None:
    """Show a text on the node that is executed; without effect outside of a server."""
    context, server = get_executing_context(), getattr(PromptServer, "instance", None)
    if context is not None and server is not None:
        server.send_progress_text(text, context.node_id)
