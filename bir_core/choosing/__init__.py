"""What a picture needs, by what is wrong with it, and doing that.

rule         from an estimate to what to do, with the reasons
carrying_out from that to the restored picture, with the built-in networks
"""

from .carrying_out import carry_out
from .rule import Choice, DiffBIRChoice, choose

__all__ = ["Choice", "DiffBIRChoice", "carry_out", "choose"]
