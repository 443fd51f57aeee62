"""What a command leaves out of MONAI, which its own programs and those of others have whole."""

import subprocess
import sys

import pytest
from PIL import Image

pytestmark = pytest.mark.slow

WHOLE = "monai matplotlib pandas sklearn transformers"
SAID = f"; import sys; print(*[name for name in {WHOLE.split()} if name in sys.modules])"


def last_line(program, *arguments):
    done = subprocess.run([sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.fixture
def fusing(tmp_path):
    words = ["fuse", "--output_dir", tmp_path / "out", "--instant"]
    for key in ("anatomy", "overlay"):
        Image.linear_gradient("L").save(tmp_path / f"{key}.png")
        words += [f"--{key}", tmp_path / f"{key}.png"]
    return words


def test_a_command_imports_monai_without_what_no_command_does(fusing):
    assert last_line("from fusion_nets.cli import main; assert main() == 0" + SAID, *fusing) == "monai"


def test_a_program_that_runs_a_command_has_all_of_it(fusing):
    program = "import sys; from fusion_nets.cli import main; assert main(sys.argv[1:]) == 0" + SAID
    assert last_line(program, *fusing) == WHOLE


def test_a_bundle_of_the_users_own_has_all_of_it(fusing):
    from fusion_nets.workflows import find_bundle

    program = "from fusion_nets.cli import main; assert main() == 0" + SAID
    assert last_line(program, *fusing, "--bundle_root", find_bundle("dmfnet")) == WHOLE


def test_afterwards_all_can_be_imported():
    program = "from fusion_nets.lean import lean_monai\nwith lean_monai():\n import monai\n import transformers"
    program += "\nimport pandas, sklearn, matplotlib" + SAID
    assert last_line(program) == WHOLE


def test_what_is_left_out_is_told_by_who_needs_it():
    program = "from fusion_nets.lean import lean_monai\nwith lean_monai():\n import monai"
    program += "\nfrom monai.data import CSVDataset\nfrom monai.utils import OptionalImportError"
    program += "\ntry:\n CSVDataset('none.csv')\nexcept OptionalImportError as error:\n print(*str(error).split())"
    assert "pandas" in last_line(program)
