"""Sixteen requests at once: some are answered, others told to wait, and the server goes on answering."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import requests
from asking import infer, left_behind

WAITING = 8


def test_sixteen_at_once(app_server):
    ends = threading.Event()
    delays = []

    def look():
        while not ends.wait(0.2):
            start = time.monotonic()
            assert requests.get(f"{app_server.url}/info/", timeout=60).ok
            delays.append(time.monotonic() - start)

    with ThreadPoolExecutor(17) as pool:
        looking = pool.submit(look)
        models = ["dmfnet", "smfusion"] * 8
        answers = list(pool.map(lambda model: infer(app_server, "head_mri", model=model), models))
        ends.set()
        looking.result()
    states = [answer.status_code for answer in answers]
    assert set(states) == {200, 503}
    assert states.count(200) >= 1 + WAITING
    told_to_wait = [answer for answer in answers if answer.status_code == 503]
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in told_to_wait)
    assert len(delays) > 10
    assert max(delays) < 5  # while networks run

    for model in ("dmfnet", "smfusion"):
        alone = infer(app_server, "head_mri", model=model).json()["metrics"]
        together = [
            answer.json()["metrics"]
            for answer, asked in zip(answers, models, strict=True)
            if asked == model and answer.ok
        ]
        assert together == [alone] * len(together) != []
    assert left_behind(app_server) == []
