"""Errors of the contract.

* ContractError
  - TopicError      a topic that is not one of ours
  - MessageError    a payload that cannot be decoded or breaks the contract
  - ProgrammeError  a lighting programme that cannot be evaluated
"""


class ContractError(ValueError):
    """Something breaks the contract between edge and backend."""


class TopicError(ContractError):
    """A topic that is not one of ours."""


class MessageError(ContractError):
    """A payload that cannot be decoded or breaks the contract."""


class ProgrammeError(ContractError):
    """A lighting programme that cannot be evaluated."""
