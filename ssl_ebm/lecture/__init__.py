"""The lecture's examples: each a module with its data, model, figures and the claims that it checks.

An example has TITLE, SENTENCE (what the lecture says) and `run(setting) -> Outcome`. EXAMPLES: their names,
in the order of the page, with the seconds that each takes for three seeds on a small machine, which only the
time left is made of.
"""

EXAMPLES = {
    "blur": 10,
    "free_energy": 5,
    "kmeans_spiral": 5,
    "maximum_likelihood": 45,
    "contrastive_divergence": 65,
    "dae": 35,
    "queries": 70,
    "seven_strategies": 230,
    "sparse_coding": 40,
    "glo": 130,
}
