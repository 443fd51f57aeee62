"""What MONAI's engines, inferers and handlers lack for fusion, and the making of image-text datalists."""

from fusion_nets.moved import tell_moved

from .batches import (
    CriticBatch,
    DescribedBatch,
    FeatureReplay,
    GroundingBatch,
    LesionBatch,
    NoisyBatch,
    PairBatch,
    SourcesBatch,
    collate_pairs,
    own_text,
    sources_apart,
)
from .captions import BestDescriber, CaptionBatch, GeneratingInferer, TextScore, warmup_cosine
from .cases import CaseMetrics, CaseRecords
from .checkpoints import (
    AverageWeights,
    BestCheckpoint,
    EarlyStop,
    EpochSeed,
    RunningCheckpoint,
    load_weights,
    stopping_score,
)
from .derivatives import BidsDerivatives
from .describing import describe_pairs
from .engines import EngineNetwork
from .evaluating import evaluate_methods
from .fusing import find_bundle, fuse_dataset, fuse_pair, kept_network
from .inference import PairStream, SlicewiseInferer
from .judging import JudgedLesions, LesionTables, judge_lesions, lesion_scores
from .kept import KeptSlices, KeptVolume
from .lesion_pairs import InsertLesions, KnownCase, read_lesion_pairs, write_lesion_pairs
from .preservation import DescriptionPreservation, DescriptionSaver, PairDescriptions
from .processes import is_first_process, join_process_group, leave_process_group, own_device
from .simulating import write_simulated_set
from .slicing import slice_pairs
from .training_sets import (
    check_crop_size,
    check_simulated,
    drawn_pairs,
    training_pairs,
    training_sources,
    training_texts,
)
from .user_values import check_arguments
from .viewing import write_page

__all__ = [
    "AverageWeights",
    "BestCheckpoint",
    "BestDescriber",
    "CaptionBatch",
    "BidsDerivatives",
    "CaseMetrics",
    "CaseRecords",
    "CriticBatch",
    "DescribedBatch",
    "DescriptionPreservation",
    "DescriptionSaver",
    "EarlyStop",
    "EngineNetwork",
    "EpochSeed",
    "FeatureReplay",
    "GroundingBatch",
    "GeneratingInferer",
    "InsertLesions",
    "JudgedLesions",
    "KeptSlices",
    "KeptVolume",
    "KnownCase",
    "LesionBatch",
    "LesionTables",
    "NoisyBatch",
    "PairBatch",
    "PairDescriptions",
    "PairStream",
    "RunningCheckpoint",
    "SlicewiseInferer",
    "SourcesBatch",
    "TextScore",
    "check_arguments",
    "check_crop_size",
    "check_simulated",
    "describe_pairs",
    "drawn_pairs",
    "evaluate_methods",
    "find_bundle",
    "fuse_dataset",
    "fuse_pair",
    "is_first_process",
    "join_process_group",
    "judge_lesions",
    "kept_network",
    "leave_process_group",
    "lesion_scores",
    "load_weights",
    "own_device",
    "collate_pairs",
    "own_text",
    "read_lesion_pairs",
    "slice_pairs",
    "sources_apart",
    "stopping_score",
    "training_pairs",
    "training_sources",
    "training_texts",
    "warmup_cosine",
    "write_lesion_pairs",
    "write_page",
    "write_simulated_set",
]

tell_moved(__name__)
