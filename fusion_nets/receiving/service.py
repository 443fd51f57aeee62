"""Receive, pair, fuse and send: what `fusion-nets receive` runs until it is ended."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from fusion_nets.clinical import ImageError, Reason
from fusion_nets.files import WriteError
from fusion_nets.shortage import full_disk, missing_memory
from fusion_nets.stages import shown_stages

from .counters import Counters, telling
from .journal import FAILED, FUSED, FUSING, PENDING, SENT, Journal, Pair
from .node import listening
from .polling import Orthanc
from .receiver_settings import Settings
from .rules import Rule, pairs_by
from .sending import SendError
from .spool import Spool, objects_in, size_of, sync_tree

__all__ = ["Receiver", "receive"]

logger = logging.getLogger(__name__)

NAME = "pair"
"""Of the results in their folder; whose they are, the folder tells."""
MOST_KILLS = 3
"""Times that the process may be killed while it fuses a pair, until the pair counts as the reason."""
FULL_WAIT = 10.0
"""Seconds to wait for room on the disk."""
DAY = 86400
PAIRED, UNPAIRED, MANY = "paired", "unpaired", "many"
"""What a look at a study found, the last for more pairs than a rule takes."""
NARROWER = "a narrower description or a higher most"
WIDER = "a rule that fits the series, as the log names them,"


@dataclass
class _Sending:
    """How often sending a pair did not end well, and when it is tried again."""

    tries: int = 0
    due: float = field(default_factory=time.monotonic)


class Receiver:
    """What is done with a spool, step by step, in one thread.

    Args:
        spool: that is open.
        settings: what to do.
        counters: of what was done.

    Attributes:
        senders: tells how many associations are open, each of which may bring more.
    """

    def __init__(self, spool: Spool, settings: Settings, counters: Counters) -> None:
        self.spool = spool
        self.settings = settings
        self.counters = counters
        self.journal = Journal(spool.pairs)
        self.rules = {rule.name: rule for rule in settings.rules}
        self.orthanc = (
            Orthanc(settings.poll, spool, counters, settings.poll_from_start, settings.tls) if settings.poll else None
        )
        self.seen = time.monotonic()
        self.senders: Callable[[], int] = lambda: 0
        self._looked: dict[str, str] = {}
        self._polled: float | None = None
        self._has_all = self.orthanc is None
        self._cleaned = 0.0
        self._sendings: dict[str, _Sending] = {}
        self._networks: dict[tuple[Any, ...], dict[str, Any]] = {}

    def step(self) -> bool:
        """Do what is due, at most one fusion.

        Returns:
            Whether nothing is left to do but to wait for objects, or for a time to come.
        """
        self.seen = time.monotonic()
        self._poll()
        for study in self.spool.quiet(self.settings.quiet):
            try:
                self._look_at(study)
            except Exception as error:
                self.spool.wait_again(study)
                logger.error("study %s: cannot be looked at now: %s", study[:8], _reason(error))
        for pair in self.journal.take_asked():
            self._sendings.pop(pair.id, None)
            logger.info("pair %s: asked for again", pair.id)
        for pair in self.journal.next(FUSED):
            self._send(pair)
        for pair in self.journal.next(PENDING, FUSING):
            if pair.rule in self.rules:
                self._fuse(pair)
                return False
        self._clean()
        return True

    def is_done(self) -> bool:
        """Whether all that came is sent or failed, and nothing is on its way that is known of."""
        if self.senders():  # asked first: what the last one brought is in the spool when it has gone
            return False
        waiting = [pair for pair in self.journal.next(PENDING, FUSING) if pair.rule in self.rules]
        sending = any(True for _ in self.journal.next(FUSED))
        return self._has_all and not (self.spool.waiting() or waiting or sending)

    def has_more(self) -> bool:
        """Whether something is left to do when the polled archive is asked once more."""
        if self.orthanc is not None:
            self._has_all = self.orthanc.ask()
        return not self.is_done()

    def has_looked(self) -> bool:
        """Whether a study came, or was there, and was looked at."""
        return bool(self._looked)

    def unsent(self) -> str:
        """Why not all is sent that came and that the rules want, or nothing is; "" where it is."""
        failed, looked = list(self.journal.next(FAILED)), list(self._looked.values())
        if failed:
            return f"{len(failed)} pairs failed; the last: {failed[-1].reason}; --list tells all, --retry tries again"
        if many := looked.count(MANY):
            return f"{many} studies have more pairs by a rule than it takes, and none is fused; {NARROWER} is accepted"
        if looked and set(looked) == {UNPAIRED}:
            return f"none of {len(looked)} studies has a pair by the rules, and nothing is fused; {WIDER} is accepted"
        return ""

    def metrics(self) -> str:
        """Counters and what is so now, as Prometheus reads it."""
        gauges: dict[tuple[str, str], float] = {
            ("pairs", f'state="{state}"'): count for state, count in self._states().items()
        }
        gauges["associations", ""] = self.senders()
        gauges["spool_bytes", ""] = self.spool.used
        gauges["spool_most_bytes", ""] = self.spool.most_bytes
        gauges["studies_waiting", ""] = self.spool.waiting()
        return self.counters.text(gauges)

    def health(self) -> tuple[bool, str]:
        """Whether objects are taken, and a line that says so."""
        states = self._states()
        told = f"pairs: {', '.join(f'{count} {state}' for state, count in states.items())}; "
        told += f"studies waiting: {self.spool.waiting()}; last step {time.monotonic() - self.seen:.0f} s ago\n"
        is_full = self.spool.is_full()
        return not is_full, f"{'full: no object is taken' if is_full else 'ok'}; {told}"

    def _states(self) -> dict[str, int]:
        counts = self.journal.counts()
        return {state: counts[state] for state in (PENDING, FUSING, FUSED, SENT, FAILED)}

    def _poll(self) -> None:
        if self.orthanc is None:
            return
        if self._polled is None or time.monotonic() - self._polled >= self.settings.poll_interval:
            self._has_all = self.orthanc.ask()
            self._polled = time.monotonic()

    def _look_at(self, study: str) -> None:
        if not (self.spool.studies / study).is_dir():
            return
        if not any(objects_in(folder) for folder in (self.spool.studies / study).iterdir()):
            return
        series, result = self.spool.series(study), UNPAIRED
        for rule in self.settings.rules:
            found = pairs_by(rule, series)
            if len(found) > rule.most:
                result = MANY
                logger.warning(
                    "study %s: %d pairs by rule %r, which takes %d at most: none is fused; %s is accepted",
                    study[:8], len(found), rule.name, rule.most, NARROWER,
                )  # fmt: skip
                continue
            for anatomy, overlay in found:
                result = PAIRED if result == UNPAIRED else result
                pair = self.journal.add(rule, study, anatomy, overlay)
                if pair is None:
                    continue
                self._sendings.pop(pair.id, None)
                logger.info("pair %s: study %s, rule %r", pair.id, study[:8], rule.name)
        if result == UNPAIRED:
            there = ", ".join(sorted(f"{_shown(one.modality)} ({one.images})" for one in series)) or "none of images"
            logger.info("study %s: no pair by any rule so far; its series and their files: %s", study[:8], there)
        self._looked[study] = result

    def _fuse(self, pair: Pair) -> None:
        if pair.fusings >= MOST_KILLS:
            self._fail(pair, "fusing", f"the process was killed {pair.fusings} times while it fused this pair")
            return
        rule, output = self.rules[pair.rule], self.journal.output(pair)
        before, is_whole = size_of(output), pair.state == FUSING and (output / f"{NAME}_fused.json").exists()
        pair, began = self.journal.note(pair, state=FUSING, fusings=pair.fusings + 1), time.monotonic()
        try:
            if not is_whole:  # the record is written last: the process was killed before it could note that
                shutil.rmtree(output, ignore_errors=True)
                self._run(rule, pair, output)
            sync_tree(output)
        except Exception as error:
            self._fail(pair, "fusing", _reason(error))
            return
        except BaseException:  # told to end, which is not the pair's fault
            self.journal.note(pair, state=PENDING, fusings=pair.fusings - 1)
            raise
        finally:
            self.spool.note(size_of(output) - before)
        self.journal.note(pair, state=FUSED, fusings=0)
        self.counters.add("fusions_total", 'result="fused"')
        logger.info("pair %s: fused in %.1f s", pair.id, time.monotonic() - began)

    def load(self) -> None:
        """Load the networks of all rules, so that what is wrong with one is told at once.

        Raises:
            ValueError: if there is no such bundle, engine or device.
            OSError: if it has no weights.
        """
        for rule in self.settings.rules:
            self._network(rule)

    def _network(self, rule: Rule) -> dict[str, Any]:
        from fusion_nets.workflows import kept_network

        engine, precision = (str(rule.options.get(name, "auto")) for name in ("engine", "precision"))
        key = (rule.method, rule.bundle_root, engine, precision)
        if key not in self._networks:
            self._networks[key] = kept_network(rule.method, rule.bundle_root, self.settings.device, engine, precision)
        return self._networks[key]

    def _run(self, rule: Rule, pair: Pair, output: Path) -> None:
        from fusion_nets.workflows import fuse_pair

        study = self.spool.studies / pair.study
        patients = {
            one.patient for one in self.spool.series(pair.study) if one.folder.name in (pair.anatomy, pair.overlay)
        }
        if len(patients) != 1:
            raise ImageError(
                Reason.MIXED,
                f"{study}: PatientID, IssuerOfPatientID or PatientBirthDate of the two series differ; "
                "series of one patient are accepted",
            )
        with shown_stages(StringIO()):  # a log is no place for bars
            fuse_pair(
                study / pair.anatomy,
                study / pair.overlay,
                output,
                method=rule.method,
                bundle_root=rule.bundle_root,
                output_format=["dicom"],
                **{**rule.options, **self._network(rule), "name": NAME},
            )

    def _send(self, pair: Pair) -> None:
        sending = self._sendings.setdefault(pair.id, _Sending())
        if time.monotonic() < sending.due:
            return
        files = sorted((self.journal.output(pair) / f"{NAME}_dicom").glob("*.dcm"))
        left: list[str] = []
        try:
            if not files:
                raise SendError("its results are gone from the spool", may_pass=False)
            for place in self.settings.destinations:
                there = self.journal.was_sent(pair, place.name)
                unsent = [file for file in files if file.name not in there]

                def confirm(sent: Sequence[Path], to: str = place.name) -> None:
                    self.journal.confirm(pair, to, [file.name for file in sent])
                    self.counters.add("sent_total", count=len(sent))

                left += place.send(unsent, confirm) if unsent else []
        except Exception as error:
            self.counters.add("send_errors_total")
            sending.tries += 1
            may_pass = error.may_pass if isinstance(error, SendError) else isinstance(error, OSError)
            reason = str(error) if isinstance(error, SendError) else _reason(error)
            if not may_pass or sending.tries >= self.settings.send_tries:
                self._fail(pair, "sending", reason)
                return
            wait = min(self.settings.send_wait * 2 ** (sending.tries - 1), 600)
            sending.due = time.monotonic() + wait
            logger.warning("pair %s: not sent: %s; tried again in %.0f s", pair.id, reason, wait)
            return
        self.journal.note(pair, state=SENT, left=sorted(set(left)))
        self._sendings.pop(pair.id, None)
        logger.info("pair %s: sent%s", pair.id, f", but for {', '.join(sorted(set(left)))}" if left else "")

    def _fail(self, pair: Pair, stage: str, reason: str) -> None:
        self.journal.note(pair, state=FAILED, stage=stage, reason=reason)
        self._sendings.pop(pair.id, None)
        if stage == "fusing":
            self.counters.add("fusions_total", 'result="failed"')
        logger.error("pair %s: %s failed: %s", pair.id, stage, reason)

    def _clean(self) -> None:
        """Remove studies that are done and old; records of their pairs stay, so that none is fused again."""
        if time.monotonic() - self._cleaned < 600:
            return
        self._cleaned = time.monotonic()
        busy = {pair.study for pair in self.journal.pairs.values() if pair.state != SENT}
        for study in list(self.spool.studies.iterdir()):
            if study.name in busy or not self.spool.is_settled(study.name, self.settings.keep_days * DAY):
                continue
            if not self.spool.remove_study(study.name):
                continue
            self._looked.pop(study.name, None)
            for pair in self.journal.pairs.values():
                if pair.study == study.name:
                    self.spool.remove(self.journal.output(pair))
            logger.info("study %s: removed after %g days", study.name[:8], self.settings.keep_days)


def receive(spool: Spool, settings: Settings, once: bool = False, stop: threading.Event | None = None) -> None:
    """Receive, fuse and send until told to stop.

    Args:
        spool: not open yet.
        settings: what to do.
        once: end when something came, or was there, all of it is sent or failed, and no association is open.
        stop: is set from another thread to end it.

    Raises:
        ValueError: with ``once``, if pairs failed, a study has too many, or no study has one; if another process has
            the spool.
        OSError: if a port cannot be had.
        ModuleNotFoundError: if the extra ``pacs`` is not installed.
    """
    counters, stop = Counters(), stop or threading.Event()
    with ExitStack() as stack:
        stack.enter_context(spool.opened())
        receiver = Receiver(spool, settings, counters)
        if settings.health is not None:
            port = stack.enter_context(telling(*settings.health, receiver.metrics, receiver.health))
            logger.info("counters and health: http://%s:%d/metrics, /health", settings.health[0], port)
        node = stack.enter_context(ExitStack())
        if settings.address is not None:
            port, receiver.senders = node.enter_context(
                listening(
                    spool, settings.title, settings.address, settings.allowed, counters, settings.tls,
                    settings.most_associations, settings.most_a_second,
                )
            )  # fmt: skip
            logger.info("%s listens at %s:%d", settings.title, settings.address[0], port)
        receiver.load()
        while not stop.is_set():
            try:
                is_idle = receiver.step()
            except WriteError as error:  # all is as its records say, and goes on when there is room
                logger.error("%s", error)
                stop.wait(FULL_WAIT)
                continue
            came = settings.address is None or receiver.has_looked()
            if once and came and is_idle and receiver.is_done():
                node.close()  # what came in this very moment is done, too, and its sender told so
                if not receiver.has_more():
                    break
            if is_idle:
                stop.wait(0.2)
        unsent = receiver.unsent()
    if once and unsent:
        raise ValueError(unsent)


def _reason(error: Exception) -> str:
    """What to keep of an error: words that are known to hold nothing of a patient, else its kind and place."""
    told = missing_memory(error) or full_disk(error)
    if told or isinstance(error, (ImageError, ModuleNotFoundError)):
        return " ".join(str(told or error).split())
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" in {os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}" if trace else ""
    return f"{type(error).__name__}{place}"


def _shown(modality: str) -> str:
    """A modality for a log, into which no other word of an object goes."""
    return modality if modality in ("CT", "MR", "NM", "PT") else "another"
