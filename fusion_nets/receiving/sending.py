"""Results on their way to an archive: by C-STORE, or by DICOMweb's STOW-RS."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fusion_nets.quiet import silence

from .node import Tls, check_title, needs_pacs

__all__ = ["Destination", "SendError", "destination"]

LOGGERS = ("pynetdicom", "dicomweb_client", "requests", "urllib3")
TOGETHER = 2**24
"""Bytes of the objects that one request of STOW-RS carries, at least one of them."""
PATIENCE = 60.0
"""Seconds that an archive may take for an answer."""

Confirm = Callable[[Sequence[Path]], None]
"""Is told the files that the archive has confirmed, as soon as it did."""


class SendError(OSError):
    """An archive that did not take what it was sent.

    Args:
        message: the reason, without anything of the objects.
        may_pass: whether the same may be taken at another time.
    """

    def __init__(self, message: str, may_pass: bool) -> None:
        super().__init__(message)
        self.may_pass = may_pass


class Destination:
    """An archive.

    Attributes:
        name: digest of its address, by which it is known in records.
        told: its address as messages give it.
    """

    def __init__(self, address: str, told: str) -> None:
        self.name = hashlib.sha256(address.encode()).hexdigest()[:8]
        self.told = told

    def send(self, files: Sequence[Path], confirm: Confirm) -> list[str]:
        """Send DICOM files.

        Args:
            files: of objects.
            confirm: is called with those that the archive has.

        Returns:
            What the archive does not take and need not, such as presentation states, by the kind of object.

        Raises:
            SendError: if it does not take the others.
        """
        with silence(LOGGERS):
            return self._send(files, confirm)

    def _send(self, files: Sequence[Path], confirm: Confirm) -> list[str]:
        raise NotImplementedError


def destination(address: str, title: str, tls: Tls | None = None) -> Destination:
    """What an address stands for.

    Args:
        address: ``dicom://TITLE@HOST:PORT``, ``dicoms://`` likewise by TLS, or the ``http(s)://`` address of DICOMweb,
            below which ``/studies`` is; user and password of that are taken from ``~/.netrc``.
        title: AE title of this node.
        tls: its certificate.

    Raises:
        ValueError: for another address.
    """
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"--to is {address!r}: {error}") from error
    if parts.scheme in ("http", "https") and parts.hostname and not parts.username:
        return _Web(address, tls)
    if parts.scheme in ("dicom", "dicoms") and parts.hostname and parts.username and port and not parts.password:
        if parts.scheme == "dicoms" and tls is None:
            raise ValueError(f"--to is {address!r}, which needs --tls_cert and --tls_key")
        called = check_title(parts.username, "the AE title of --to")
        return _Node(address, called, parts.hostname, port, title, tls if parts.scheme == "dicoms" else None)
    raise ValueError(
        "--to is no address of an archive; dicom://TITLE@HOST:PORT, dicoms://TITLE@HOST:PORT, http://HOST/PATH and "
        "https://HOST/PATH without user and password are accepted"
    )


class _Node(Destination):
    def __init__(self, address: str, called: str, host: str, port: int, title: str, tls: Tls | None) -> None:
        super().__init__(address, address)
        self.called, self.host, self.port, self.title, self.tls = called, host, port, title, tls

    def _send(self, files: Sequence[Path], confirm: Confirm) -> list[str]:
        try:
            from pynetdicom import AE
        except ModuleNotFoundError as error:
            raise needs_pacs(error) from error
        from pydicom import dcmread
        from pydicom.filereader import read_file_meta_info

        metas = [read_file_meta_info(file) for file in files]
        kinds = {(str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)) for meta in metas}
        ae = AE(self.title)
        ae.acse_timeout = ae.network_timeout = ae.dimse_timeout = ae.connection_timeout = PATIENCE
        for sop_class, syntax in sorted(kinds):
            ae.add_requested_context(sop_class, syntax)
        how: dict[str, Any] = {"tls_args": (self.tls.client(), self.host)} if self.tls else {}
        association = ae.associate(self.host, self.port, ae_title=self.called, **how)
        if not association.is_established:
            reason = "refused the association" if association.is_rejected else "cannot be reached"
            raise SendError(f"{self.told} {reason}", may_pass=True)
        try:
            taken = {(str(one.abstract_syntax), str(one.transfer_syntax[0])) for one in association.accepted_contexts}
            left = []
            for file, meta in zip(files, metas, strict=True):
                kind = str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)
                if kind not in taken:
                    left.append(_left(meta.MediaStorageSOPClassUID, self.told))
                    continue
                status = association.send_c_store(dcmread(file))
                if "Status" not in status:
                    raise SendError(f"{self.told} ended the association", may_pass=True)
                if status.Status != 0 and status.Status >> 12 != 0xB:  # success, or one of its warnings
                    full = status.Status >> 8 == 0xA7
                    raise SendError(f"{self.told} answered with status {status.Status:04X}", may_pass=full)
                confirm([file])
            association.release()
            return sorted(set(left))
        finally:
            if association.is_established:
                association.abort()


class _Web(Destination):
    def __init__(self, address: str, tls: Tls | None) -> None:
        super().__init__(address, address)
        self.address, self.tls = address.rstrip("/"), tls

    def _send(self, files: Sequence[Path], confirm: Confirm) -> list[str]:
        try:
            from dicomweb_client.web import DICOMwebClient
        except ModuleNotFoundError as error:
            raise needs_pacs(error) from error
        from pydicom import dcmread
        from requests import RequestException

        client = DICOMwebClient(self.address, session=session(self.tls), timeout=PATIENCE)
        client.set_http_retry_params(retry=False)
        for some in _together(files):
            datasets = [dcmread(file) for file in some]
            try:
                answer = client.store_instances(datasets)
            except RequestException as error:
                code = getattr(error.response, "status_code", None)
                reason = f"answered with {code}" if code else f"cannot be reached ({type(error).__name__})"
                raise SendError(f"{self.told} {reason}", code is None or code >= 500 or code == 429) from error
            stored = {str(item.ReferencedSOPInstanceUID) for item in answer.get("ReferencedSOPSequence") or []}
            there = [file for file, dataset in zip(some, datasets, strict=True) if dataset.SOPInstanceUID in stored]
            confirm(there)
            if len(there) < len(some):
                reasons = sorted({f"{int(item.FailureReason):04X}" for item in answer.get("FailedSOPSequence") or []})
                told = f"did not take {len(some) - len(there)} objects, for reason {', '.join(reasons) or 'untold'}"
                raise SendError(f"{self.told} {told}", may_pass=False)
        return []


def session(tls: Tls | None) -> Any:
    """For requests to an archive, which must prove itself by `tls`'s authority, if there is one."""
    import requests

    made = requests.Session()
    if tls is not None:
        made.cert = (tls.certificate, tls.key)
        made.verify = tls.authority or True
    return made


def _together(files: Sequence[Path]) -> list[list[Path]]:
    parts: list[list[Path]] = []
    size = TOGETHER
    for file in files:
        length = os.path.getsize(file)
        if size + length > TOGETHER:
            parts.append([])
            size = 0
        parts[-1].append(file)
        size += length
    return parts


def _left(sop_class: Any, told: str) -> str:
    """An object that an archive need not have.

    Raises:
        SendError: for an image.
    """
    if "Image Storage" in sop_class.name:
        raise SendError(f"{told} takes no {sop_class.name.removesuffix(' Storage')}", may_pass=False)
    return str(sop_class.name).removesuffix(" Storage")
