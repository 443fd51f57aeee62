import orthanc as server
import pytest


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory):
    yield from server.start(tmp_path_factory.mktemp("orthanc"))
