"""Instances to a server by STOW-RS."""

import logging
from collections.abc import Iterator, Sequence

import pydicom
import requests
from dicomweb_client.api import DICOMwebClient
from pydicom.dataset import Dataset

from oncofm.dicomweb.server import read_token
from oncofm.errors import WebRefusedError
from oncofm.pacs.config import StowDestination
from oncofm.pacs.database import PENDING, SENT, Delivery
from oncofm.pacs.send_dicom import unreadable
from oncofm.pacs.verdict import Verdict, judge_http, judge_status


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
        return judge_http(error.response.status_code if error.response is not None else 500)
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
    failed = answer.get("FailedSOPSequence")
    if failed:
        return judge_status(int(failed[0].get("FailureReason", 0xC000)))
    return Verdict(SENT, "HTTP 200")


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
