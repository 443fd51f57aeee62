from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def sample_study(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The sample study as NIfTI, coarse: files "mri", "pet" and "ct" of one folder; not to be changed."""
    from fusion_nets.clinical import write_sample_study

    return write_sample_study(tmp_path_factory.mktemp("sample"), spacing=4)


@pytest.fixture(scope="session")
def label_server(tmp_path_factory: pytest.TempPathFactory):
    """Starts MONAI Label: `label_server(app, studies, conf, env=None)`; see `label_server.Server`.

    Ends whatever still runs at the end; a test that needs a server no longer calls its `stop`.
    """
    import label_server as real

    started = []

    def start(app, studies, conf, env=None):
        started.append(real.start(app, studies, conf, env, tmp_path_factory.mktemp("server")))
        return started[-1]

    yield start
    for server in started:
        server.stop()
