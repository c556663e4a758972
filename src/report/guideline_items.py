"""Items of two reporting guidelines: their numbers, their topics in our words, and the facts that answer them.

Numbers and topics were read in the sources named here, and nowhere else:

- CLAIM 2024, 44 items: ``CLAIM.read_in``, the checklist of the guideline's own website, published by RSNA.
- TRIPOD+AI, 27 items in 52 parts: ``TRIPOD.read_in``, a public transcription of the statement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from report import data_facts as data
from report import model_facts as model
from report.study import Fact, Study

Answer = Callable[[Study], Fact | None]


@dataclass(frozen=True)
class Item:
    """One item: ``number``, ``topic``, and who answers it.

    ``facts``: what the files say about it; ``ask``: what the author must say, "" if the facts answer the item;
    ``not_applicable``: why it does not apply where no fact is found, "" if it applies; ``all_needed``: the item is
    answered only if every fact is found, not just one.
    """

    number: str
    topic: str
    facts: tuple[Answer, ...] = ()
    ask: str = ""
    not_applicable: str = ""
    all_needed: bool = False


@dataclass(frozen=True)
class Guideline:
    """A reporting guideline: its article, the page on which its items were read, and how many there are."""

    name: str
    article: str
    read_in: str
    items: Sequence[Item]
    size: str


_CLAIM = (
    Item("1", "the title or abstract names AI and its kind", (model.model_kind,), "the title"),
    Item("2", "abstract: design, methods, results, conclusions", ask="the abstract"),
    Item("3", "background, intended use and role of the model", ask="background, intended use, role"),
    Item("4", "aims and hypotheses", (model.arms_compared,), "aims and hypotheses, and when they were fixed"),
    Item("5", "prospective or retrospective", ask="how the data were collected; stored images do not tell"),
    Item("6", "goal of the study", (model.arms_compared,), "the goal"),
    Item("7", "where the data come from, synthetic images included",
         (data.data_set, data.data_version, data.synthetic_origin, data.generator),
         "links, and how well the data fit the intended use and people"),
    Item("8", "who was included and excluded", (data.exclusions,), "criteria that were applied before the data folder"),
    Item("9", "preprocessing", (model.preprocessing,)),
    Item("10", "choice of parts of the data", (model.preprocessing, data.split)),
    Item("11", "de-identification", (data.removed_at_import,), ask="how identifiers were removed, and by which rules"),
    Item("12", "handling of missing data", (data.missing_data,)),
    Item("13", "how the images were taken", (data.views,), "devices, protocols, resolution"),
    Item("14", "definition of the reference standard", (data.label,), "how the label was obtained"),
    Item("15", "why this reference standard", ask="the reasons, and the alternatives"),
    Item("16", "who annotated", ask="source, qualification and training of the annotators"),
    Item("17", "annotation of the test set", ask="how test images were annotated; the files hold one label per image"),
    Item("18", "agreement between and within annotators", ask="measures of agreement; how differences were settled"),
    Item("19", "assignment to training, tuning and test", (data.split, data.folds)),
    Item("20", "level at which the parts are separate", (data.grouping,)),
    Item("21", "planned size of the test set", (model.sample_size,), "whether the size was planned, and how"),
    Item("22", "the model in detail", (model.architecture,)),
    Item("23", "software and versions", (model.software,)),
    Item("24", "initial parameters", (model.initial_weights,)),
    Item("25", "training", (model.training_options, model.preprocessing)),
    Item("26", "choice of the final model", (model.selection,)),
    Item("27", "ensembles", (model.ensemble,), not_applicable="each arm is one model"),
    Item("28", "metrics", (model.metrics,)),
    Item("29", "statistical tests and uncertainty", (model.uncertainty,)),
    Item("30", "robustness and sensitivity", (model.robustness,)),
    Item("31", "explanations of the model", (model.heat_maps,), "whether the explanations were validated",
         "no heat maps were made"),
    Item("32", "test on internal data", (data.test_set, model.performance)),
    Item("33", "test on external data", (data.external_tests,)),
    Item("34", "registration as a clinical trial", ask="registration, if this is a clinical trial"),
    Item("35", "numbers included and excluded, with a diagram", (data.flow_in_figure, data.exclusions),
         "numbers left out before the data folder"),
    Item("36", "people in each part", (data.people_by_side,), "clinical characteristics that the table lacks"),
    Item("37", "performance, on all parts and in subgroups", (model.performance, model.fold_scores, model.subgroups),
         all_needed=True),
    Item("38", "diagnostic performance and its precision", (model.performance, model.confusion)),
    Item("39", "analysis of wrong results", (model.confusion, model.errors, model.heat_maps),
         "what the wrongly called images show"),
    Item("40", "limits of the study", (model.limits,), "the limits"),
    Item("41", "meaning for practice", ask="implications, intended use, clinical role"),
    Item("42", "where the protocol or technical details are", (model.recorded_commands,), "a lasting reference"),
    Item("43", "availability of software, model and data", (model.recorded_commands, data.data_version),
         "links and conditions"),
    Item("44", "funding and the role of funders", ask="funding"),
)  # fmt: skip

_NO_CLUSTER = "not examined: the tables that this software reads name no hospital or country"
_NOT_UPDATED = "no model was updated from its results on the test set"

_TRIPOD = (
    Item("1", "title: development or evaluation, people, outcome", ask="the title"),
    Item("2", "abstract, by the guideline's own list for abstracts", ask="the abstract"),
    Item("3a", "medical context, rationale, earlier models", ask="context (diagnostic) and rationale, with references"),
    Item("3b", "intended people, purpose, users", ask="people, place in care, users"),
    Item("3c", "known inequalities in health between groups", ask="known inequalities"),
    Item("4", "objectives: development, evaluation, or both", (model.arms_compared,), "the objectives"),
    Item("5a", "sources of the data for development and evaluation", (data.data_set, data.data_version, data.split),
         "why these data, and how representative they are"),
    Item("5b", "dates of the data", ask="first and last date of the images"),
    Item("6a", "setting, number and place of centres", ask="setting and centres"),
    Item("6b", "who was eligible", (data.exclusions,), "criteria that were applied before the data folder"),
    Item("6c", "treatments, and how they were handled", ask="treatments, if they matter"),
    Item("7", "preparation and quality checks of the data", (model.preprocessing, data.missing_data)),
    Item("8a", "outcome: definition, time, method", (data.label,), "how and when the outcome was assessed, and why so"),
    Item("8b", "who assessed the outcome", ask="qualification and demography of the annotators"),
    Item("8c", "blinding of the outcome's assessment", ask="what the annotators knew"),
    Item("9a", "choice of predictors", (model.architecture,)),
    Item("9b", "definition of the predictors", (model.preprocessing, data.views), "how and when the images were taken"),
    Item("9c", "who assessed predictors that need judgement",
         not_applicable="the only predictor is the image, which the network reads itself"),
    Item("10", "size of the study", (data.images_and_patients, model.sample_size), "how the size was arrived at"),
    Item("11", "missing data", (data.missing_data,)),
    Item("12a", "use of the data for development and evaluation", (data.split, data.folds)),
    Item("12b", "how predictors enter the model", (model.preprocessing,)),
    Item("12c", "type of model, building steps, tuning, internal validation",
         (model.architecture, model.training_options, model.selection, data.folds)),
    Item("12d", "differences between clusters such as hospitals: methods", not_applicable=_NO_CLUSTER),
    Item("12e", "measures and plots of performance, comparison of models",
         (model.metrics, model.uncertainty, model.net_benefit)),
    Item("12f", "updating after the evaluation: methods", not_applicable=_NOT_UPDATED),
    Item("12g", "how predictions were calculated", (model.architecture, model.ensemble, model.recorded_commands)),
    Item("13", "unequal classes", (model.imbalance,),
         not_applicable="no method against unequal classes was used"),
    Item("14", "fairness: what was done", (model.interactions,), ask="what was done for fairness, and why"),
    Item("15", "output, classes and thresholds", (model.thresholds,)),
    Item("16", "differences between development and evaluation data", (data.people_by_side,),
         "differences in setting, eligibility, outcome and predictors"),
    Item("17", "ethical approval and consent", ask="committee, number, consent or waiver"),
    Item("18a", "funding", ask="funding and the role of funders"),
    Item("18b", "conflicts of interest", ask="conflicts of interest"),
    Item("18c", "protocol", ask="where the protocol is, or that there is none"),
    Item("18d", "registration", ask="registration, or that there is none"),
    Item("18e", "availability of the data", (data.data_set, data.data_version), "where and how the data can be had"),
    Item("18f", "availability of the code", (model.recorded_commands,), "a link to the code of this version"),
    Item("19", "involvement of patients and the public", ask="involvement, or that there was none"),
    Item("20a", "flow of participants, with and without the outcome", (data.flow_in_figure,),
         "numbers left out before the data folder"),
    Item("20b", "characteristics of the participants", (data.people_by_side,), "dates, treatments, other diseases"),
    Item("20c", "development and evaluation data side by side", (data.people_by_side,)),
    Item("21", "participants and events in each analysis", (data.flow_in_figure, data.folds, data.test_set)),
    Item("22", "the full model, for others to use", (model.recorded_commands,), "where the weights can be had"),
    Item("23a", "performance with intervals, also in subgroups", (model.performance, model.subgroups), all_needed=True),
    Item("23b", "differences between clusters: results", not_applicable=_NO_CLUSTER),
    Item("24", "updating: results", not_applicable=_NOT_UPDATED),
    Item("25", "interpretation, fairness included", (model.differences,), "the interpretation"),
    Item("26", "limits and their effects", (model.limits,), "the limits"),
    Item("27a", "poor or missing input in use", (data.missing_data,), "what users must do with poor images"),
    Item("27b", "what users must do and know", ask="interaction and expertise"),
    Item("27c", "next steps", ask="next steps"),
)  # fmt: skip

CLAIM = Guideline(
    "CLAIM 2024",
    "Tejani et al., Radiology: Artificial Intelligence 2024;6(4):e240300, https://doi.org/10.1148/ryai.240300",
    "https://github.com/RSNA/CLAIM/blob/0277cdde8f0c4a436b2fe2cec72af4dc0a321a23/docs/checklist.md",
    _CLAIM, "44 items",
)  # fmt: skip
TRIPOD = Guideline(
    "TRIPOD+AI",
    "Collins et al., BMJ 2024;385:e078378, https://doi.org/10.1136/bmj-2023-078378",
    "https://github.com/Aperivue/medsci-skills/blob/0353da9ffef7332f765bf8593c96c08af5770d02/skills/check-reporting/"
    "references/checklists/TRIPOD_AI.md",
    _TRIPOD, "27 items in 52 parts",
)  # fmt: skip
GUIDELINES = (CLAIM, TRIPOD)
