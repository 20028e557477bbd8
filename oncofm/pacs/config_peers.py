"""Sections of the configuration about others: where reports go, and where studies are fetched."""

from typing import Annotated, Literal

from pydantic import Field

from oncofm.pacs.config_values import (
    AETitle,
    File,
    Modalities,
    Patience,
    Port,
    Section,
    Text,
    Texts,
)


class ClientTls(Section):
    """Files of the client's side of TLS.

    Attributes
    ----------
    ca : pathlib.Path
        PEM of who signs the peer's certificate.
    certificate, key : pathlib.Path or None
        PEM of the client's own certificate, where the peer wants one.
    check_host : bool
        Whether the certificate must name the host.
    """

    ca: File
    certificate: File | None = None
    key: File | None = None
    check_host: bool = True


class DicomDestination(Section):
    """A peer that takes reports by C-STORE.

    Attributes
    ----------
    host, port, ae_title
        The peer.
    calling_ae_title : str
        Who the node is for it.
    timeout_s : float
        As long an answer is waited for.
    tls : ClientTls or None
        With it nothing but TLS is spoken.
    commitment : bool
        Ask for storage commitment: a report counts as sent when the peer says that it keeps it.
    commitment_timeout_s : float
        It is asked again if it said nothing for as long, then twice that, and so on.
    """

    type: Literal["dicom"]
    host: Text
    port: Port
    ae_title: AETitle
    calling_ae_title: AETitle
    timeout_s: Patience = 30.0
    tls: ClientTls | None = None
    commitment: bool = False
    commitment_timeout_s: Annotated[float, Field(gt=0)] = 600.0


class StowDestination(Section):
    """A server that takes reports by STOW-RS.

    Attributes
    ----------
    url : str
        Of the DICOMweb service; ``/studies`` is added.
    token_file : pathlib.Path or None
        File with a bearer token.
    ca : pathlib.Path or None
        PEM of who signs the server's certificate, if not one that the system knows.
    """

    type: Literal["stow"]
    url: Annotated[str, Field(pattern=r"^https?://[^\s@]+$")]
    timeout_s: Patience = 30.0
    token_file: File | None = None
    ca: File | None = None


Destination = Annotated[DicomDestination | StowDestination, Field(discriminator="type")]


class QidoSource(Section):
    """A server that studies are fetched from over DICOMweb.

    Attributes
    ----------
    url : str
        Of the DICOMweb service; ``/studies`` is added.
    timeout_s : float
        So long it may be silent.
    token_file : pathlib.Path or None
        File with a bearer token.
    ca : pathlib.Path or None
        PEM of who signs the server's certificate, if not one that the system knows.
    every_s : float or None
        It is asked as often for new studies; without it never, but for what an operator orders.
    modality : tuple of str
        Studies that have one of these are fetched.
    last_days : int or None
        Studies of today and as many days before; None asks for all.
    study_description, series_description, station : tuple of str
        Patterns, as in a rule, for the study or for any of its series.
    series : tuple of str
        Modalities of the series that are fetched.
    ae_title : str or None
        Which of the node's titles they are fetched for; None is the first.
    """

    type: Literal["qido"]
    url: Annotated[str, Field(pattern=r"^https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~%+:-]+)*/?$")]
    timeout_s: Patience = 30.0
    token_file: File | None = None
    ca: File | None = None
    every_s: Annotated[float, Field(gt=0)] | None = None
    modality: Annotated[Modalities, Field(min_length=1)] = ("SEG", "RTSTRUCT")
    last_days: Annotated[int, Field(ge=0, le=36_500)] | None = 2
    study_description: Texts = ()
    series_description: Texts = ()
    station: Texts = ()
    series: Annotated[Modalities, Field(min_length=1)] = ("CT", "SEG", "RTSTRUCT")
    ae_title: AETitle | None = None
