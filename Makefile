# Two commands for a user: `make demo` and `make test`. The others are for those who work on the library.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BUNDLE := bundles/dmfnet
DATASET ?= ../shared/data/aanlib
PUBLISHED ?= ../shared/data/published/dmfnet
SCOREBOARD ?= ../shared/reference/metrics/scoreboard.json
export PYTHONWARNINGS := ignore

.PHONY: demo test lint bench scores clean

demo: $(READY)
	$(BIN)/fusion-nets sample --output_dir demo
	$(BIN)/python -m monai.bundle run --config_file "['$(BUNDLE)/configs/inference.json', '$(BUNDLE)/configs/evaluate.json']" \
	    --bundle_root $(BUNDLE) --logging_file $(BUNDLE)/configs/logging.conf \
	    --anatomy demo/mri.nii.gz --overlay demo/pet.nii.gz --overlay_window "[0, 16]" --overlay_colour True \
	    --output_dir demo/results --slices_at_once 4
	mv demo/results/mri_fused.nii.gz demo/fused.nii.gz
	mv demo/results/metrics.csv demo/metrics.csv
	$(BIN)/fusion-nets montage --anatomy demo/mri.nii.gz --overlay demo/pet.nii.gz --fused demo/fused.nii.gz \
	    --titles MRI FDG-PET Fused --output demo/montage.png
	@echo; echo "The sample study, fused:"; ls -1 demo/mri.nii.gz demo/pet.nii.gz demo/ct.nii.gz demo/study.json \
	    demo/fused.nii.gz demo/montage.png demo/metrics.csv

test: $(READY)
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# evidence that takes minutes: speed against the plain way, and the table of the model card
bench: $(READY)
	$(BIN)/python tests/benchmarks/dmfnet_speed.py

scores: $(READY)
	$(BIN)/python tests/benchmarks/dmfnet_scores.py --dataset_dir $(DATASET) --published_dir $(PUBLISHED) --scoreboard $(SCOREBOARD)

$(READY): pyproject.toml constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[sample,minilm,dev]"
	touch $(READY)

clean:
	rm -rf $(VENV) demo
