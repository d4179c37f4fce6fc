"""The rows of `hub_rows.ROWS` as the data sets' own releases write them: name -> {file: text}.

Read through the same cast, both must give the same fields, references and options.
"""

from __future__ import annotations

import json
from typing import Any

from hub_rows import CHOICES, PASSAGE, ROWS


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def tabs(*rows: list[str]) -> str:
    return "".join("\t".join(row) + "\n" for row in rows)


def choices() -> list[dict[str, str]]:
    pairs = zip(CHOICES["text"], CHOICES["label"], strict=True)
    return [{"text": text, "label": label} for text, label in pairs]


def nested(name: str, **extra: Any) -> str:
    """Return SQuAD's JSON of the one question in `ROWS[name]`."""
    row = ROWS[name][0]
    spans = row["answers"]
    answers = [
        {"text": text, "answer_start": start}
        for text, start in zip(spans["text"], spans["answer_start"], strict=True)
    ]
    asked = {"id": row["id"], "question": row["question"], "answers": answers}
    paragraph = {"context": row["context"], "qas": [asked]}
    return json.dumps(
        {"version": "1.1", "data": [{"title": row["title"], "paragraphs": [paragraph], **extra}]}
    )


def question(name: str, text: str, **extra: Any) -> str:
    """Return the nested question of AI2's releases, with the choices that every such row has."""
    row = {key: value for key, value in ROWS[name][0].items() if key not in ("choices", text)}
    return lines({**row, "question": {"stem": ROWS[name][0][text], "choices": choices(), **extra}})


def race() -> str:
    """Return one file of RACE with the question of `ROWS` between two others."""
    row = ROWS["race/high"][0]
    return lines(
        {
            "answers": [row["answer"]],
            "options": [row["options"]],
            "questions": [row["question"]],
            "article": row["article"],
            "id": "high1.txt",
        }
    )


PREMISE, HYPOTHESIS = "The mill is shut for the winter.", "Nobody grinds corn today."
FIRST, SECOND = "The mill is old.", "The mill was built long ago."
MNLI_HEAD = ["index", "promptID", "pairID", "genre", "sentence1", "sentence2", "label1", "gold_label"]
MNLI = ["0", "1", "1a", "fiction", PREMISE, HYPOTHESIS]
SUPER = {"premise": PREMISE, "hypothesis": HYPOTHESIS, "idx": 0}


def snli(label: str) -> str:
    return lines(
        {
            "gold_label": label,
            "sentence1": PREMISE,
            "sentence2": HYPOTHESIS,
            "pairID": "1a",
            "annotator_labels": [],
        }
    )


ORIGINALS: dict[str, dict[str, str]] = {
    "glue/cola": {"train.tsv": "gj04\t1\t\tThe miller sleeps.\n"},
    "glue/sst2": {"train.tsv": "sentence\tlabel\na warm and clever film \t1\n"},
    "glue/mrpc": {
        "msr_paraphrase_train.txt": "\ufeff"
        + tabs(["Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"], ["1", "7", "8", FIRST, SECOND])
    },
    "glue/qqp": {
        "train.tsv": tabs(
            ["id", "qid1", "qid2", "question1", "question2", "is_duplicate"],
            ["0", "1", "2", "How do I bake?", "How is bread baked?", "1"],
        )
    },
    "glue/stsb": {
        "train.tsv": tabs(
            ["index", "genre", "sentence1", "sentence2", "score"], ["0", "main", FIRST, SECOND, "3.800"]
        )
    },
    "glue/mnli": {"train.tsv": tabs(MNLI_HEAD, [*MNLI, "neutral", "neutral"])},
    "glue/mnli_matched": {"dev_matched.tsv": tabs(MNLI_HEAD, [*MNLI, "neutral", "contradiction"])},
    "glue/mnli_mismatched": {"dev_mismatched.tsv": tabs(MNLI_HEAD, [*MNLI, "neutral", "entailment"])},
    "glue/qnli": {
        "train.tsv": tabs(
            ["index", "question", "sentence", "label"], ["0", "Who owns it?", "Ode owns it.", "entailment"]
        )
    },
    "glue/rte": {
        "train.tsv": tabs(["index", "sentence1", "sentence2", "label"], ["0", FIRST, SECOND, "entailment"])
    },
    "glue/wnli": {"train.tsv": tabs(["index", "sentence1", "sentence2", "label"], ["0", FIRST, SECOND, "1"])},
    "super_glue/boolq": {
        "train.jsonl": lines({"question": "is the mill old", "passage": PASSAGE, "idx": 0, "label": True})
    },
    "super_glue/cb": {"train.jsonl": lines({**SUPER, "label": "neutral"})},
    "super_glue/rte": {"train.jsonl": lines({**SUPER, "label": "not_entailment"})},
    "super_glue/copa": {"train.jsonl": lines(ROWS["super_glue/copa"][0])},
    "super_glue/wic": {"train.jsonl": lines({**ROWS["super_glue/wic"][0], "label": False, "version": 1.1})},
    "super_glue/multirc": {
        "train.jsonl": lines(
            {
                "idx": 0,
                "version": 1.1,
                "passage": {
                    "text": PASSAGE,
                    "questions": [
                        {
                            "question": "Who built the mill?",
                            "idx": 1,
                            "answers": [{"text": "Ode", "idx": 2, "label": 1}],
                        }
                    ],
                },
            }
        )
    },
    "super_glue/record": {
        "train.jsonl": lines(
            {
                "source": "s",
                "idx": 0,
                "passage": {
                    "text": PASSAGE,
                    "entities": [
                        {"start": 45, "end": 47},
                        {"start": 61, "end": 64},
                        {"start": 45, "end": 47},
                    ],
                },
                "qas": [
                    {
                        "query": "The mill of @placeholder still stands.",
                        "idx": 1,
                        "answers": [{"start": 45, "end": 47, "text": "Ode"}],
                    }
                ],
            }
        )
    },
    "super_glue/wsc.fixed": {
        "train.jsonl": lines(
            {
                "text": "Ode paid Ann because he was rich.",
                "target": {"span1_index": 0, "span2_index": 4, "span1_text": "Ode", "span2_text": "he"},
                "idx": 0,
                "label": True,
            }
        )
    },
    "super_glue/axb": {
        "AX-b.jsonl": lines(
            {"sentence1": FIRST, "sentence2": SECOND, "idx": 0, "label": "entailment", "logic": ""}
        )
    },
    "super_glue/axg": {"AX-g.jsonl": lines({**SUPER, "label": "not_entailment", "pair_id": 551})},
    "anli": {
        "R2/train.jsonl": lines(
            {
                "uid": "u1",
                "context": PREMISE,
                "hypothesis": HYPOTHESIS,
                "label": "n",
                "reason": "r",
                "genre": "w",
            }
        )
    },
    "snli": {"snli_1.0_train.jsonl": snli("entailment")},
    "multi_nli": {"multinli_1.0_train.jsonl": snli("contradiction")},
    "hans": {
        "heuristics_train_set.txt": tabs(
            ["gold_label", "sentence1", "sentence2", "pairID"], ["non-entailment", PREMISE, HYPOTHESIS, "ex0"]
        )
    },
    "scitail/tsv_format": {"scitail_1.0_train.tsv": tabs([PREMISE, HYPOTHESIS, "entails"])},
    "paws/labeled_final": {
        "train.tsv": tabs(["id", "sentence1", "sentence2", "label"], ["1", FIRST, SECOND, "1"])
    },
    "quora": {
        "quora_duplicate_questions.tsv": tabs(
            ["id", "qid1", "qid2", "question1", "question2", "is_duplicate"],
            ["0", "1", "2", "How do I bake?", "How is bread baked?", "1"],
        )
    },
    "stsb_multi_mt/en": {"stsb-en-train.csv": f"{FIRST},{SECOND},4.6\n"},
    "hellaswag": {"hellaswag_train.jsonl": lines({**ROWS["hellaswag"][0], "label": 1})},
    "swag/regular": {
        "train.csv": ",video-id,fold-ind,startphrase,sent1,sent2,gold-source,ending0,ending1,ending2,ending3,label\n"
        "0,v,1,A man kneads dough. He,A man kneads dough.,He,gold,flies.,bakes it.,sings.,sleeps.,1\n"
    },
    "story_cloze/2016": {
        "cloze_test_val__winter2018.csv": "InputStoryid,InputSentence1,InputSentence2,InputSentence3,InputSentence4,"
        "RandomFifthSentenceQuiz1,RandomFifthSentenceQuiz2,AnswerRightEnding\n"
        "s1,Ode had no flour.,He went to the mill.,The wheel turned.,He filled a sack.,He flew home.,He baked bread.,2\n"
    },
    "winogrande/winogrande_xl": {
        "train_xl.jsonl": lines({**ROWS["winogrande/winogrande_xl"][0], "qID": "a-1"})
    },
    "crows_pairs": {
        "crows_pairs_anonymized.csv": ",sent_more,sent_less,stereo_antistereo,bias_type,annotations\n"
        "0,Millers are slow.,Bakers are slow.,stereo,socioeconomic,[]\n"
    },
    "commonsense_qa": {
        "train_rand_split.jsonl": question("commonsense_qa", "question", question_concept="wheel")
    },
    "riddle_sense": {"rs_train.jsonl": question("riddle_sense", "question")},
    "ai2_arc/ARC-Easy": {"ARC-Easy-Train.jsonl": question("ai2_arc/ARC-Easy", "question")},
    "openbookqa/main": {"train.jsonl": question("openbookqa/main", "question_stem")},
    "qasc": {"train.jsonl": question("qasc", "question")},
    "wiqa": {
        "train.jsonl": lines(
            {
                "question": {
                    "stem": ROWS["wiqa"][0]["question_stem"],
                    "para_steps": ROWS["wiqa"][0]["question_para_step"],
                    "answer_label": "more",
                    "answer_label_as_choice": "A",
                    "choices": [
                        {"label": "A", "text": "more"},
                        {"label": "B", "text": "less"},
                        {"label": "C", "text": "no effect"},
                    ],
                },
                "metadata": {
                    "ques_id": "q",
                    "graph_id": "g",
                    "para_id": "p",
                    "question_type": "INPARA_EFFECT",
                },
            }
        )
    },
    "piqa": {
        "train.jsonl": lines({"goal": "To grind corn", "sol1": "use a mill", "sol2": "use a spoon"}),
        "train-labels.lst": "0\n",
    },
    "social_i_qa": {
        "train.jsonl": lines({k: v for k, v in ROWS["social_i_qa"][0].items() if k != "label"}),
        "train-labels.lst": "2\n",
    },
    "art": {
        "train.jsonl": lines(
            {
                "story_id": "s",
                "obs1": "The wheel stopped.",
                "obs2": "Ode broke the ice.",
                "hyp1": "The river froze.",
                "hyp2": "It was summer.",
            }
        ),
        "train-labels.lst": "1\n",
    },
    "race/high": {"train/high/1.txt": race()},
    "cosmos_qa": {
        "train.csv": "id,context,question,answer0,answer1,answer2,answer3,label\n"
        f"1,{PASSAGE},Who built it?,Ode,Ann,A king,None,0\n"
    },
    "sciq": {"train.json": json.dumps([ROWS["sciq"][0]])},
    "mc_taco": {"dev_3783.tsv": tabs(["Ode ground corn.", "How long?", "an hour", "yes", "Event Duration"])},
    "math_qa": {"train.json": json.dumps([ROWS["math_qa"][0]])},
    "aqua_rat/raw": {"train.json": lines(ROWS["aqua_rat/raw"][0])},
    "wiki_hop/original": {
        "train.json": json.dumps(
            [{"query" if k == "question" else k: v for k, v in ROWS["wiki_hop/original"][0].items()}]
        )
    },
    "squad": {"train-v1.1.json": nested("squad")},
    "squad_v2": {"train-v2.0.json": nested("squad_v2")},
    "xquad/xquad.en": {"xquad.en.json": nested("xquad/xquad.en")},
    "quoref": {"quoref-train-v0.1.json": nested("quoref", url="u")},
    "tydiqa/secondary_task": {"tydiqa-goldp-v1.1-train.json": nested("tydiqa/secondary_task")},
    "ropes": {
        "train-v1.0.json": json.dumps(
            {
                "data": [
                    {
                        "paragraphs": [
                            {
                                "background": "Water turns wheels.",
                                "situation": "Mill A has water, mill B has none.",
                                "qas": [
                                    {
                                        "id": "r",
                                        "question": "Which mill turns?",
                                        "answers": [{"text": "mill A"}],
                                    }
                                ],
                            }
                        ]
                    }
                ]
            }
        )
    },
    "duorc/SelfRC": {
        "SelfRC_train.json": json.dumps(
            [
                {
                    "id": "p",
                    "plot": PASSAGE,
                    "title": "The Mill",
                    "qa": [
                        {"id": "q", "question": "Who built the mill?", "answers": ["Ode"], "no_answer": False}
                    ],
                }
            ]
        )
    },
    "hotpot_qa/distractor": {
        "hotpot_train_v1.1.json": json.dumps(
            [
                {
                    "_id": "h",
                    "question": "Who built the mill by the river?",
                    "answer": "Ode",
                    "type": "bridge",
                    "level": "easy",
                    "supporting_facts": [["Mill", 0]],
                    "context": [["Mill", ["Ode built it."]], ["River", ["It flows."]]],
                }
            ]
        )
    },
    "coqa": {
        "coqa-train-v1.0.json": json.dumps(
            {
                "data": [
                    {
                        "id": "c",
                        "story": PASSAGE,
                        "questions": [
                            {"input_text": "Who built it?", "turn_id": 1},
                            {"input_text": "When?", "turn_id": 2},
                        ],
                        "answers": [
                            {"input_text": "Ode", "span_start": 45, "span_end": 48, "turn_id": 1},
                            {"input_text": "1804", "span_start": 61, "span_end": 65, "turn_id": 2},
                        ],
                    }
                ]
            }
        )
    },
    "wiki_qa": {
        "WikiQA-train.tsv": tabs(
            ["QuestionID", "Question", "DocumentID", "DocumentTitle", "SentenceID", "Sentence", "Label"],
            ["Q1", "who built the mill", "D1", "Mill", "D1-0", "Ode built it.", "1"],
        )
    },
    "ag_news": {"train.csv": '"2","Mill beats bakery in the cup final.","Fans cheered."\n'},
    "dbpedia_14": {"train.csv": '7,"Ode\'s mill","Ode\'s mill is a building."\n'},
    "amazon_polarity": {"train.csv": '"2","Fine flour","It bakes well."\n'},
    "yelp_polarity": {"train.csv": '"2","The bread from this mill is wonderful."\n'},
    "yelp_review_full": {"train.csv": '"5","The bread from this mill is wonderful."\n'},
    "yahoo_answers_topics": {"train.csv": '"6","Who won?","The cup.","The mill."\n'},
    "sst/default": {"train.txt": "(4 (2 (2 a) (3 warm)) (2 film))\n"},
    "financial_phrasebank/sentences_allagree": {
        "Sentences_AllAgree.txt": "The mill sold more flour.@positive\n"
    },
    "liar": {
        "train.tsv": tabs(
            ["1.json", "true", "The mill was built in 1804.", "history", "ode", "Miller", "", "none"]
            + ["0"] * 5
            + ["a speech"]
        )
    },
    "fever/v1.0": {
        "train.jsonl": lines({"id": 1, "label": "SUPPORTS", "claim": "Ode built a mill.", "evidence": []})
    },
    "nq_open": {"NQ-open.train.jsonl": lines(ROWS["nq_open"][0])},
    "samsum": {"train.json": json.dumps([ROWS["samsum"][0]])},
    "gigaword": {"train.src.txt": "ode built a mill in 1804 .\n", "train.tgt.txt": "mill built\n"},
    "e2e_nlg_cleaned": {
        "train-fixed.no-ol.csv": 'mr,ref,fixed\n"name[The Mill], food[bread]",The Mill serves bread.,False\n'
    },
    "scan/simple": {"tasks_train_simple.txt": "IN: jump twice OUT: I_JUMP I_JUMP\n"},
    "codah/codah": {"full_data.tsv": tabs(["i", "The wheel", "sings.", "turns.", "eats.", "reads.", "1"])},
    "drop": {
        "drop_dataset_train.json": json.dumps(
            {
                "s": {
                    "passage": PASSAGE,
                    "qa_pairs": [
                        {
                            "query_id": "q",
                            "question": "Who built it?",
                            "answer": {
                                "number": "",
                                "date": {"day": "", "month": "", "year": ""},
                                "spans": ["Ode"],
                            },
                        }
                    ],
                }
            }
        )
    },
}
SAME_BUT = {"drop": {"answer", "answers_spans"}}
"""Fields to which the Hub's rows add something: types of answers."""
