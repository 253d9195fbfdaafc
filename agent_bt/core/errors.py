"""The exceptions of agent-bt, each with the exit code a command ends with.

AgentBtError                   1   something failed; the message says what to do next
|-- UsageError                 2   the command line is wrong
|-- ConfigError                2   a config file, environment variable or --set value is wrong
|-- PromptError                2   a prompt file cannot be read, parsed or rendered
|-- StrategyError              1   a strategy broke its contract
|-- DataError                  1   market data is missing, damaged or cannot be fetched
|   |-- ArchiveError           1   an archive file is unusable (checksum, ZIP, columns)
|   `-- MissingData            1   the store does not cover what was asked for
|-- ModelError                 1   the model cannot be used at all; the run stops at once
|   |-- AuthenticationFailed   1   the key is missing, wrong or not allowed
|   |-- UnknownModel           1   the endpoint does not know the model
|   |-- RequestRejected        1   the endpoint refuses the request itself (HTTP 400 after all format negotiation)
|   `-- EndpointDown           1   no connection, or a long series of transport failures
|-- RecordError                1   a run folder is damaged, incomplete or cannot be written
|-- QualityGate                3   too many decisions failed for the result to mean anything
|-- BudgetReached              4   the budget is used up; the run can be continued
|-- ReplayError                5   a replay lacks a reply, or its result differs
`-- Interrupted              130   stopped by the user; the run can be continued
"""

from __future__ import annotations


class AgentBtError(Exception):
    """Base of all errors that a user reads; `str(error)` is one complete message."""

    exit_code = 1


class UsageError(AgentBtError):
    """The command line is wrong."""

    exit_code = 2


class ConfigError(AgentBtError):
    """A config file, environment variable or `--set` value is wrong."""

    exit_code = 2


class PromptError(AgentBtError):
    """A prompt file cannot be read, parsed or rendered."""

    exit_code = 2


class StrategyError(AgentBtError):
    """A strategy broke its contract."""


class DataError(AgentBtError):
    """Market data is missing, damaged or cannot be fetched."""


class ArchiveError(DataError):
    """An archive file is unusable: checksum, ZIP structure, columns or values."""


class MissingData(DataError):
    """The store does not cover the range that was asked for."""


class ModelError(AgentBtError):
    """The model cannot be used at all; no decision can be made with it."""


class AuthenticationFailed(ModelError):
    """The API key is missing, wrong or not allowed to use the model."""


class UnknownModel(ModelError):
    """The endpoint does not know the model."""


class RequestRejected(ModelError):
    """The endpoint refuses the request itself, after all steps of the format negotiation."""


class EndpointDown(ModelError):
    """No connection, or a long series of transport failures."""


class RecordError(AgentBtError):
    """A run folder is damaged, incomplete or cannot be written."""


class QualityGate(AgentBtError):
    """Too many decisions failed for the result to mean anything."""

    exit_code = 3


class BudgetReached(AgentBtError):
    """The budget is used up; the run can be continued with a larger one."""

    exit_code = 4


class ReplayError(AgentBtError):
    """A replay lacks a reply, or its result differs."""

    exit_code = 5


class Interrupted(AgentBtError):
    """Stopped by the user; the run can be continued."""

    exit_code = 130
