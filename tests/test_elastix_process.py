import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from fusion_nets import elastix_process
from fusion_nets.commands.of_images import _may_register
from fusion_nets.elastix_process import Placed, begin, find_transforms, leave
from fusion_nets.options import build_parser
from fusion_nets.registration.elastix import PARAMETERS
from fusion_nets.running import beginning

pytestmark = pytest.mark.slow

MAP = {key: [value] for key, value in PARAMETERS.items()}
MAP |= {"Transform": ["EulerTransform"], "CenterOfRotationPoint": ["20", "20", "20"], "NumberOfResolutions": ["1"]}


def placed(values):
    return Placed(values, np.array([1.0, 1.5, 2.0]), np.array([3.0, -4.0, 5.0]), np.eye(3))


@pytest.fixture(scope="module")
def images():
    noise = np.random.default_rng(0).random((40, 40, 40), dtype=np.float32)
    fixed = gaussian_filter(noise, 3)
    return placed(fixed), placed(np.roll(fixed, 2, axis=1)), placed(np.ones((40, 40, 40), np.uint8))


def shift(found):
    return [float(value) for value in found[0]["TransformParameters"][3:]]


def the_process():
    return elastix_process._worker.process


def until(condition):
    ends = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.05)


def test_finds_what_elastix_finds_here(images):
    import itk

    def laid(one):
        image = itk.image_from_array(one.values)
        image.SetSpacing(one.spacing.tolist())
        image.SetOrigin(one.origin.tolist())
        return image

    parameters = itk.ParameterObject.New()
    parameters.AddParameterMap(MAP)
    method = itk.ElastixRegistrationMethod.New(laid(images[0]), laid(images[1]))
    method.SetParameterObject(parameters)
    method.SetFixedMask(laid(images[2]))
    method.SetLogToConsole(False)
    method.SetNumberOfThreads(1)
    method.Update()
    wanted = method.GetTransformParameterObject().GetParameterMap(0)
    (found,) = find_transforms(*images, [MAP])
    assert found == {key: list(values) for key, values in wanted.items()}
    assert shift([found]) == pytest.approx([0, 3, 0], abs=0.2)  # two voxels of 1.5 mm


def test_threads_take_turns(images):
    found = []
    others = images[0], placed(np.roll(images[0].values, -1, axis=2)), images[2]
    threads = [
        threading.Thread(target=lambda given=given: found.append(shift(find_transforms(*given, [MAP]))))
        for given in (images, others, images)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    right, down = sorted(np.round(found, 0).tolist())[0], sorted(np.round(found, 0).tolist())[1:]
    assert right == [-1, 0, 0]
    assert down == [[0, 3, 0]] * 2


def test_what_elastix_says_is_told(images):
    with pytest.raises(RuntimeError, match=r"(?i)elastix"):
        find_transforms(*images, [{**MAP, "Transform": ["NoSuchTransform"]}])
    assert shift(find_transforms(*images, [MAP])) == pytest.approx([0, 3, 0], abs=0.2)


def test_a_process_that_dies_is_told_and_replaced(images):
    find_transforms(*images, [MAP])
    dying = the_process()
    threading.Timer(0.3, dying.kill).start()
    with pytest.raises(RuntimeError, match="ended with -9"):
        find_transforms(*images, [{**MAP, "MaximumNumberOfIterations": ["100000"]}])
    assert shift(find_transforms(*images, [MAP])) == pytest.approx([0, 3, 0], abs=0.2)
    assert the_process().pid != dying.pid


def test_one_that_was_of_no_use_is_ended_and_one_that_was_stays(images):
    find_transforms(*images, [MAP])
    used = the_process()
    leave()
    assert used.poll() is None
    elastix_process._worker.end()
    begin()
    unused = the_process()
    leave()
    assert unused.poll() is not None
    assert the_process() is None
    leave()


def test_one_that_is_idle_ends_and_the_next_is_as_good(images, monkeypatch):
    monkeypatch.setattr(elastix_process, "IDLE", 0.3)
    first = shift(find_transforms(*images, [MAP]))
    until(lambda: the_process() is None)
    assert shift(find_transforms(*images, [MAP])) == first
    one = the_process()
    monkeypatch.setattr(elastix_process, "IDLE", 30)
    find_transforms(*images, [MAP])  # asked again in time
    time.sleep(0.6)
    assert the_process() is one


def test_where_it_cannot_start_who_needs_it_is_told(images, monkeypatch):
    elastix_process._worker.end()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    begin()
    with pytest.raises(RuntimeError, match="No such file"):
        find_transforms(*images, [MAP])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_leaves_its_parents_alone(images):
    find_transforms(*images, [MAP])
    child = os.fork()
    if not child:
        begin()
        own = the_process()
        elastix_process._worker.end()
        os._exit(0 if own else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert shift(find_transforms(*images, [MAP])) == pytest.approx([0, 3, 0], abs=0.2)


@pytest.mark.parametrize("ending", ["killed", "left"])
def test_it_ends_with_who_began_it(ending):
    program = "import time; from fusion_nets import elastix_process as e; e.begin()"
    program += "; print(e._worker.process.pid, flush=True)"
    program += "; time.sleep(60)" if ending == "killed" else ""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        worker = int(parent.stdout.readline())
        if ending == "killed":
            parent.send_signal(signal.SIGKILL)
    until(lambda: beginning(worker) is None)


def test_it_starts_without_torch():
    program = "import sys; from fusion_nets import elastix_process; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "False"


@pytest.mark.parametrize(
    ("words", "begins"),
    [
        (["--anatomy", "{scan}", "--overlay", "{scan}"], True),
        (["--anatomy", "{scan}", "--overlay", "{scan}", "--overlay", "{file}"], False),
        (["--anatomy", "{file}", "--overlay", "{file}"], False),
        (["--anatomy", "{file}", "--overlay", "{file}", "--register", "rigid"], True),
        (["--anatomy", "{scan}", "--overlay", "{scan}", "--register", "none"], False),
        (["--anatomy", "{scan}", "--overlay", "{scan}", "--transform", "a.tfm"], False),
        (["--anatomy", "x" * 5000, "--overlay", "\0"], False),
        (["--bids_dir", "{scan}"], False),
    ],
)
def test_a_command_begins_it_where_it_is_likely_needed(words, begins, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    (tmp_path / "a.nii").touch()
    words = [word.format(scan=tmp_path, file=tmp_path / "a.nii") for word in words]
    asked = build_parser().parse_args(["fuse", *words, "--output_dir", "out"])
    assert _may_register(asked) == begins
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert not _may_register(asked)


@pytest.mark.parametrize("safe", ["", "1"])
def test_its_folders_names_are_not_found_and_others_are(safe, tmp_path):
    """There are a text and a files among them; Python from 3.11 on leaves the folder out where it is told to."""
    (tmp_path / "itk.py").write_text("import sys; sys.stderr.write(repr(sys.path)); raise SystemExit(3)\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": safe}
    command = [sys.executable, str(elastix_process._WORKER)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 3, done.stderr
    assert str(tmp_path) in done.stderr
    assert str(elastix_process._WORKER.parent) + "'" not in done.stderr


def test_it_loads_what_elastix_uses_and_all_of_an_itk_that_is_another(tmp_path):
    (tmp_path / "itk.py").write_text(
        "import sys; part = any(type(one).__name__ == '_Unused' for one in sys.meta_path)\n"
        "sys.stderr.write('part ' if part else 'whole')\n"
        "if part: raise AttributeError('support')\n"
        "raise SystemExit(3)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, str(elastix_process._WORKER)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stderr) == (3, "part whole")


def test_one_that_had_to_load_all_of_itk_answers_as_well(images, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text("import itk.support.base as base; del base.ITKModuleInfo\n")
    elastix_process._worker.end()
    wanted = find_transforms(*images, [MAP])
    elastix_process._worker.end()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert find_transforms(*images, [MAP]) == wanted
    elastix_process._worker.end()


def test_of_torch_it_loads_nothing(images):
    program = "import sys; sys.path.insert(0, sys.argv[1]); import elastix_worker as worker; worker.load_used()"
    program += "; print('torch._C' in sys.modules, len([name for name in sys.modules if name.startswith('itk._')]))"
    folder = str(elastix_process._WORKER.parent)
    torch, parts = subprocess.check_output([sys.executable, "-c", program, folder], text=True).split()
    assert torch == "False"
    assert int(parts) < 200  # of 565
