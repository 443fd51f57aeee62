"""The command that fuses what arrives."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["receive"]


def receive(arguments: argparse.Namespace) -> None:
    """Receive, fuse and send; or show what became of it."""
    import logging
    import os

    from fusion_nets.receiving import Journal, Settings, Spool, Tls, destination, read_rules
    from fusion_nets.receiving import receive as serve

    if arguments.list or arguments.retry is not None:
        if not os.path.isdir(arguments.spool):
            raise ValueError(f"--spool {arguments.spool}: no such folder; one that was received into is accepted")
        journal = Journal(Path(arguments.spool) / "pairs")
        asked = journal.pairs.values() if arguments.retry is None else journal.ask_again(arguments.retry)
        for pair in asked:
            print(" ".join(filter(None, (pair.id, pair.rule, pair.study[:8], pair.state, pair.reason))))
        return
    tls = Tls(arguments.tls_cert, arguments.tls_key, arguments.tls_ca) if arguments.tls_cert else None
    settings = Settings(
        rules=read_rules(arguments.rules),
        destinations=[destination(address, arguments.aet, tls) for address in arguments.to],
        title=arguments.aet,
        address=None if arguments.port is None else (arguments.host, arguments.port),
        allowed=arguments.allow,
        tls=tls,
        most_associations=arguments.max_associations,
        most_a_second=arguments.max_rate,
        health=None if arguments.health_port is None else ("127.0.0.1", arguments.health_port),
        **{name: getattr(arguments, name) for name in ("quiet", "poll", "poll_interval", "poll_from_start")},
        **{name: getattr(arguments, name) for name in ("keep_days", "device")},
    )
    log = logging.getLogger("fusion_nets.receiving")
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    spool = Spool(arguments.spool, int(arguments.max_spool * 2**30), int(arguments.max_object * 2**20))
    serve(spool, settings, arguments.once)
