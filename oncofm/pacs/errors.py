"""Errors of the node."""

from oncofm.errors import Rejected, SetupError


class PacsConfigError(SetupError):
    """The configuration of a node cannot be used."""

    code = "pacs_config_invalid"


class NodeError(SetupError):
    """A node cannot start, or knows no such study."""

    code = "pacs_node"


class ObjectRefusedError(Rejected):
    """A DICOM object that the node does not take."""

    code = "object_refused"


class NoReportError(Rejected):
    """A job ended without a report that can be sent."""

    code = "no_report"
