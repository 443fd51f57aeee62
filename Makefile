# Two commands for a user: `make demo` and `make test`. The others are for those who work on the library.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DATASET ?= ../shared/data/aanlib
PUBLISHED ?= ../shared/data/published/dmfnet
SCOREBOARD ?= ../shared/reference/metrics/scoreboard.json
SCORES = $(BIN)/python tests/benchmarks/scores.py --dataset_dir $(DATASET) --published_dir $(PUBLISHED) --scoreboard $(SCOREBOARD)
FUSE_TEST = $(BIN)/python -m monai.bundle run --dataset_dir $(DATASET) --section test
REPORTS = $(BIN)/python tests/benchmarks/report_preservation.py --dataset_dir $(DATASET) --published_dir $(PUBLISHED) \
    --method SMFusion=runs/reports/smfusion --method DM-FNet=runs/reports/dmfnet
FUSE_SAMPLE = $(BIN)/python -m monai.bundle run --anatomy demo/mri.nii.gz --overlay demo/pet.nii.gz --overlay_window "[0, 16]" \
    --overlay_palette hot --slices_at_once 4 --logging_file bundles/dmfnet/configs/logging.conf
export PYTHONWARNINGS := ignore

.PHONY: demo test lint bench scores reports clean

demo: $(READY)
	$(BIN)/fusion-nets sample --output_dir demo
	$(FUSE_SAMPLE) --bundle_root bundles/dmfnet --output_dir demo/dmfnet \
	    --config_file "['bundles/dmfnet/configs/inference.json', 'bundles/dmfnet/configs/evaluate.json']"
	$(FUSE_SAMPLE) --bundle_root bundles/smfusion --output_dir demo/smfusion \
	    --config_file "['bundles/smfusion/configs/inference.json', 'bundles/smfusion/configs/evaluate.json']" \
	    --describe True --anatomy_modality MR --overlay_modality PT
	$(BIN)/fusion-nets montage --anatomy demo/mri.nii.gz --overlay demo/pet.nii.gz \
	    --fused demo/dmfnet/mri_fused.nii.gz demo/smfusion/mri_fused.nii.gz \
	    --titles MRI FDG-PET DM-FNet SMFusion --report demo/smfusion/mri_report.json --output demo/montage.png
	@echo; echo "The sample study, fused by both methods:"; ls -1 demo/mri.nii.gz demo/pet.nii.gz demo/ct.nii.gz \
	    demo/study.json demo/*/mri_fused.nii.gz demo/*/metrics.csv demo/smfusion/mri_report.json demo/montage.png

test: $(READY)
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# evidence that takes minutes: speed, and the tables of the model cards
bench: $(READY)
	$(BIN)/python tests/benchmarks/dmfnet_speed.py
	$(BIN)/python tests/benchmarks/smfusion_speed.py
	$(BIN)/python tests/benchmarks/metrics_speed.py

scores: $(READY)
	$(SCORES) --bundle bundles/dmfnet
	$(SCORES) --bundle bundles/smfusion --option describe=True

# what reports of fused images keep of reports of their sources, and whether SMFusion's texts matter
reports: $(READY)
	$(FUSE_TEST) --bundle_root bundles/dmfnet --output_dir runs/reports/dmfnet \
	    --config_file "['bundles/dmfnet/configs/inference.json', 'bundles/dmfnet/configs/evaluate.json']"
	$(FUSE_TEST) --bundle_root bundles/smfusion --output_dir runs/reports/smfusion --describe True \
	    --config_file "['bundles/smfusion/configs/inference.json', 'bundles/smfusion/configs/evaluate.json']"
	$(REPORTS) --encoder
	$(REPORTS) --specific
	$(BIN)/python tests/benchmarks/text_matters.py --dataset_dir $(DATASET) --section published

$(READY): pyproject.toml constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[sample,report,minilm,dev]"
	touch $(READY)

clean:
	rm -rf $(VENV) demo
