from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def sample_study(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The sample study as NIfTI, coarse: files "mri", "pet" and "ct" of one folder; not to be changed."""
    from fusion_nets.simulation import write_sample_study

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


@pytest.fixture(scope="session")
def studies(sample_study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A datastore: pairs "head" (MRI and PET) and "other" (MRI and CT), three images "three", and what is no pair."""
    from asking import SLICES, few_slices
    from PIL import Image

    folder, outside = tmp_path_factory.mktemp("studies"), tmp_path_factory.mktemp("outside")
    for study, slices, names in (
        ("head", SLICES["head"], ("mri", "pet")),
        ("other", SLICES["other"], ("mri", "ct")),
        ("three", SLICES["head"], ("mri", "pet", "ct")),
        ("alone", SLICES["head"], ("mri",)),
        ("broken", SLICES["head"], ("mri",)),
        ("link", SLICES["head"], ("mri",)),
    ):
        for name in names:
            few_slices(sample_study[name], folder / f"{study}_{name}.nii.gz", slices)
    (folder / "broken_pet.nii.gz").write_bytes(b"\x1f\x8b no gzip at all")
    few_slices(sample_study["pet"], outside / "secret.nii.gz", SLICES["head"])
    (folder / "link_pet.nii.gz").symlink_to(outside / "secret.nii.gz")
    for number, name in enumerate(("mri", "ct")):
        Image.linear_gradient("L").resize((64, 48)).rotate(180 * number).save(folder / f"picture_{name}.png")
    return folder


@pytest.fixture(scope="session")
def app_server(label_server, studies):
    """The app with both models, serving these studies."""
    import label_server as real

    return label_server(real.ROOT / "bundles" / "monailabel", studies, {"models": "dmfnet,smfusion"})
