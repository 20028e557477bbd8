"""Instances to a server by STOW-RS."""

import contextlib
import logging
from collections.abc import Iterator, Sequence

import pydicom
import requests
from dicomweb_client.api import DICOMwebClient
from pydicom.dataset import Dataset

from oncofm.dicomweb.server import read_token
from oncofm.errors import WebRefusedError
from oncofm.pacs.config_peers import StowDestination
from oncofm.pacs.database import PENDING, SENT, Delivery
from oncofm.pacs.send_dicom import unreadable
from oncofm.pacs.verdict import Verdict, judge_http, judge_status

_CONFLICT = 409


def send_stow(
    destination: StowDestination, deliveries: Sequence[Delivery]
) -> Iterator[tuple[Delivery, Verdict]]:
    """Send instances, each in a request of its own, so that one answer is about one instance.

    Parameters
    ----------
    destination : StowDestination
        The server.
    deliveries : sequence of Delivery
        What is to be sent.

    Yields
    ------
    tuple of Delivery and Verdict
        As each is answered; all are yielded.
    """
    logging.getLogger("dicomweb_client").setLevel(logging.CRITICAL)
    for delivery in deliveries:
        try:
            dataset = pydicom.dcmread(delivery.file)
        except Exception as error:  # garbled bytes make pydicom raise anything
            yield delivery, unreadable(delivery, error)
            continue
        yield delivery, _post(destination, dataset)


def _post(destination: StowDestination, dataset: Dataset) -> Verdict:
    try:
        answer = _client(destination).store_instances([dataset])
    except requests.HTTPError as error:
        return judge_http(500) if error.response is None else _judge_refusal(error.response)
    except requests.JSONDecodeError:
        return Verdict(PENDING, "", "The server's answer is no DICOM JSON; look at its address.")
    except requests.RequestException as error:
        return Verdict(
            PENDING,
            type(error).__name__,
            "The server does not answer; start it, or mend the network.",
        )
    except WebRefusedError as error:
        return Verdict(PENDING, "", str(error))
    except Exception as error:  # an answer that is JSON or XML, but not of DICOM
        name = type(error).__name__
        return Verdict(PENDING, "", f"The server's answer is not of DICOM ({name}).")
    reason = _failure_reason(answer)
    return Verdict(SENT, "HTTP 200") if reason is None else judge_status(reason)


def _judge_refusal(response: requests.Response) -> Verdict:
    """Judge an answer that is no success; with 409 there is a reason (PS3.18 table 10.5.3-1)."""
    if response.status_code == _CONFLICT:
        with contextlib.suppress(Exception):  # a body of any kind
            reason = _failure_reason(Dataset.from_json(response.json()))
            if reason is not None:
                return judge_status(reason)
    return judge_http(response.status_code)


def _failure_reason(answer: Dataset) -> int | None:
    failed = answer.get("FailedSOPSequence")
    return int(failed[0].get("FailureReason", 0xC000)) if failed else None


def _client(destination: StowDestination) -> DICOMwebClient:
    session = requests.Session()
    session.verify = str(destination.ca) if destination.ca else True
    # Variables of the environment (REQUESTS_CA_BUNDLE) would win over the certificates given here.
    session.trust_env = destination.ca is None
    if destination.token_file is not None:
        token = read_token(destination.token_file)
        session.headers["Authorization"] = f"Bearer {token}"
    client = DICOMwebClient(destination.url, session=session, timeout=destination.timeout_s)
    client.set_http_retry_params(retry=False)
    return client
