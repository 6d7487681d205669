"""Wrong configurations: where something is put, what, and what the sentence about it must hold.

Each is put into the sound configuration of test_config.py. `STUDY`, `OVERVIEW` and `SEGMENT` are sound, too.
"""

STUDY = {"experiment": "mnist", "rows": ["resnet"], "vary": [{"setting": "data.seed", "values": [0, 1]}]}
CHOICE = {"experiment": "mnist", "candidates": {"resnet": [{}]}}
SEGMENT = {"masks": "a.csv", "manifest": "b.csv"}
NAMED = "must be letters, digits and underscores, and begin with a letter"
MNIST = {"data": {"name": "mnist"}}
ROW = "experiments.mnist.methods.long"
RECIPE = "experiments.mnist.training"


def study(**changes):
    return {"s": {**STUDY, **changes}}


def varied(setting, values, **more):
    return study(vary=[{"setting": setting, "values": values, **more}])


def isnet(**params):
    return {"method": "stochastic_isnet", "params": params}


WRONG = [
    # ---- the whole ----
    ("seeds", [], "seeds: Tuple should have at least 1 item after validation, not 0, not []"),
    ("seeds", 0, "seeds: Input should be a valid array, not 0"),
    ("seeds", None, "the configuration lacks the key 'seeds'"),
    ("seeds", [0, 1, 0], "seeds: 0 is given twice"),
    ("seeds", [1.5], "mine.yaml: seeds.0: Input should be a valid integer, not 1.5"),
    ("seeds", [True], "mine.yaml: seeds.0: Input should be a valid integer, not True"),
    ("device", None, "device: Input should be 'auto', 'cpu' or 'cuda', not None"),
    ("results", "", "results: String should have at least 1 character, not ''"),
    ("results", None, "results: Input should be a valid string, not None"),
    ("plugins", "mine.py", "plugins: Input should be a valid array, not 'mine.py'"),
    ("plugins", [5], "plugins.0: Input should be a valid string, not 5"),
    ("experiments", None, "experiments: Input should be an object, not None"),
    ("experiments", [], "experiments: Input should be an object, not []"),
    # ---- experiments and data ----
    ("experiments.1st", MNIST, f"experiments: the name '1st' {NAMED}"),
    ("experiments.a b", MNIST, f"experiments: the name 'a b' {NAMED}"),
    ("experiments.tables", MNIST, "experiments: the name 'tables' is taken: it names a rule or another folder"),
    ("experiments.mnist_classes", MNIST, "experiments.mnist_classes: a table of experiment mnist has that name"),
    ("experiments.x", None, "experiments.x: Input should be an object, not None"),
    ("experiments.x", {}, "experiments.x lacks the key 'data'"),
    ("experiments.x", {"data": "mnist"}, "experiments.x.data: Input should be an object, not 'mnist'"),
    ("experiments.x", {"data": {}}, "experiments.x.data lacks the key 'name'"),
    ("experiments.mnist.title", 5, "experiments.mnist.title: Input should be a valid string, not 5"),
    ("experiments.mnist.score", "f1", "mnist.score: Input should be 'accuracy', 'macro_f1', 'balanced_accuracy' or"),
    ("experiments.mnist.gallery", "resnet", "experiments.mnist.gallery: Input should be a valid array, not 'resnet'"),
    ("experiments.mnist.gallery_set", "odd", "gallery_set: no test set 'odd'; the data mnist have deceiving, iid, ood"),
    ("experiments.mnist.gallery_set", "swapped", "gallery_set: no test set 'swapped'; the data mnist have"),
    ("experiments.mnist.data.train_images", 3, "mnist.data.train_images: 3 is less than the minimum of 10"),
    ("experiments.mnist.data.image_size", 0, "mnist.data.image_size: 0 is less than the minimum of 28"),
    ("experiments.mnist.data.seed", -1, "mnist.data.seed: -1 is less than the minimum of 0"),
    ("experiments.mnist.data.bias.strength", 1.5, "mnist.data.bias.strength: 1.5 is greater than the maximum of 1"),
    ("experiments.mnist.data.bias.strength", ".5", "mnist.data.bias.strength: '.5' is not of type 'number'"),
    ("experiments.mnist.data.bias.strength", float("nan"), "data.bias.strength: must be a finite number, not nan"),
    ("experiments.mnist.data.bias.pattern", "dots", "bias.pattern: 'dots' is not one of ['border_pixel', "),
    ("experiments.mnist.data.bias.size", 0, "bias.size: 0 is less than or equal to the minimum of 0"),
    ("experiments.mnist.data.mask_dilation", -1, "mask_dilation: -1 is less than the minimum of 0"),
    ("experiments.mnist.data.mask_quality", {"change": "blur"}, "change: 'blur' is not one of ['erode', 'dilate', "),
    ("experiments.mnist.data.masks", 0, "mnist.data.masks.number: must be a whole number from 1, or a share below 1"),
    ("experiments.mnist.data.masks", "half", "masks.number: must be a whole number from 1, or a share below 1, not 'h"),
    ("experiments.mnist.data.masks", {"number": 9, "choose": "best"}, "choose: Input should be 'random', 'per_class'"),
    ("experiments.mnist.data", {"name": "xray", "image_size": 8}, "image_size: 8 is less than the minimum of 32"),
    ("experiments.mnist.data", {"name": "phantom", "train_images": 1}, "1 is less than the minimum of 3"),
    # ---- backbones ----
    (
        "experiments.mnist.backbone",
        None,
        "experiments.mnist: with methods it also needs the keys backbone and training",
    ),
    ("experiments.mnist.backbone", {}, "experiments.mnist.backbone lacks the key 'name'"),
    ("experiments.mnist.backbone", "resnet18", "mnist.backbone: Input should be an object, not 'resnet18'"),
    ("experiments.mnist.backbone.channels", 0, "channels: Input should be greater than or equal to 1, not 0"),
    ("experiments.mnist.backbone.options", [1], "mnist.backbone.options: Input should be an object, not [1]"),
    ("experiments.mnist.backbone.options", {"channels": [8]}, "options: 'channels' is set by the data; leave it out"),
    ("experiments.mnist.backbone.options", {"num_classes": 3}, "options: 'num_classes' is set by the data; leave it"),
    ("experiments.mnist.backbone.options", {"drop_rate": float("nan")}, "drop_rate: must be a finite number, not nan"),
    # ---- recipes ----
    (RECIPE, None, "experiments.mnist: with methods it also needs the keys backbone and training"),
    (f"{RECIPE}.epochs", 0, "epochs: Input should be greater than or equal to 1, not 0"),
    (f"{RECIPE}.epochs", 2.5, "epochs: Input should be a valid integer, not 2.5"),
    (f"{RECIPE}.epochs", True, "epochs: Input should be a valid integer, not True"),
    (f"{RECIPE}.batch_size", None, "batch_size: Input should be a valid integer, not None"),
    (f"{RECIPE}.learning_rate", 0, "learning_rate: Input should be greater than 0, not 0"),
    (f"{RECIPE}.learning_rate", "5e-3", "learning_rate: Input should be a valid number, not '5e-3'"),
    (f"{RECIPE}.learning_rate", float("inf"), "learning_rate: Input should be a finite number, not inf"),
    (f"{RECIPE}.weight_decay", -0.1, "weight_decay: Input should be greater than or equal to 0, not -0.1"),
    (f"{RECIPE}.gradient_clip", 0, "gradient_clip: Input should be greater than 0, not 0"),
    (f"{RECIPE}.schedule", "step", "schedule: Input should be 'one_cycle', 'cosine' or 'constant', not 'step'"),
    (
        f"{RECIPE}.epoch",
        "best",
        "epoch: Input should be 'classification', 'total', 'worst_group' or 'last'",
    ),
    (f"{RECIPE}.precision", "fp16", "precision: Input should be 'float32' or 'bf16', not 'fp16'"),
    (f"{RECIPE}.optimizer", "adam", "optimizer: Input should be 'adamw' or 'sgd', not 'adam'"),
    (f"{RECIPE}.momentum", 1, "momentum: Input should be less than 1, not 1"),
    (f"{RECIPE}.masked_images", 0, "masked_images: Input should be greater than or equal to 1, not 0"),
    # ---- rows ----
    ("experiments.mnist.methods", "resnet", "mnist.methods: Input should be an object, not 'resnet'"),
    ("experiments.mnist.methods", ["resnet", "resnet"], "mnist.methods: 'resnet' is given twice"),
    ("experiments.mnist.methods.range", {"method": "resnet"}, "methods: the name 'range' is taken: it names another"),
    ("experiments.mnist.methods.re snet", {"method": "resnet"}, f"methods: the name 're snet' {NAMED}"),
    (f"{ROW}.method", "resnett", "methods.long: unknown method 'resnett'; did you mean 'resnet'? known: "),
    (f"{ROW}.params", {"x": 1}, "methods.long.params: unknown key 'x'; known: none"),
    (f"{ROW}.label", "", "methods.long.label: String should have at least 1 character, not ''"),
    (
        f"{ROW}.training",
        {"epoch": 3},
        "long.training.epoch: Input should be 'classification', 'total', ",
    ),
    (
        f"{ROW}.training",
        {"lr": 3},
        "methods.long.training: unknown key 'lr'; known: augmentation, ",
    ),
    (ROW, isnet(heatmap_weight=2), "params.heatmap_weight: 2 is greater than the maximum of 1"),
    (ROW, isnet(heatmap_weight="0.7"), "params.heatmap_weight: '0.7' is not of type 'number'"),
    (ROW, isnet(propagation="blok"), "params.propagation: 'blok' is not one of ['flex', 'block']"),
    (ROW, isnet(layers="layer1"), "params.layers: 'layer1' is not of type 'array'"),
    (ROW, isnet(epsilon=float("nan")), "methods.long.params.epsilon: must be a finite number, not nan"),
    (ROW, isnet(heatmap_fraction=0), "heatmap_fraction: 0 is less than or equal to the minimum of 0"),
    # ---- timing ----
    ("timing.classes", [1], "mine.yaml: timing.classes.0: Input should be greater than or equal to 2, not 1"),
    ("timing.methods", ["range"], "timing.methods: the name 'range' is taken: it names another folder"),
    ("timing.operations", ["train"], "timing.operations.0: Input should be 'training step', 'heatmaps', "),
    ("timing.image_size", 4, "timing.image_size: Input should be greater than or equal to 8, not 4"),
    ("timing.cases", {"a-b": {}}, f"timing.cases: the name 'a-b' {NAMED}"),
    ("timing.cases", {"x": {"rounds": 0}}, "timing.cases.x.rounds: Input should be greater than or equal to 1"),
    ("timing.cases", {"x": {"methods": ["magic"]}}, "timing.cases.x.methods.magic: unknown method 'magic'; known: "),
    # ---- studies, overviews, segmentation ----
    ("studies", study(experiment="mnits"), "studies.s: unknown experiment 'mnits'; did you mean 'mnist'? known: "),
    ("studies", study(experiment="other"), "studies.s: experiment other has no backbone and training to start from"),
    ("studies", study(rows=["resnte"]), "studies.s: unknown row 'resnte'; did you mean 'resnet'? known: "),
    ("studies", study(vary=[]), "studies.s: a study needs either the keys rows and vary, or the key candidates"),
    ("studies", study(seeds=[]), "studies.s.seeds: Tuple should have at least 1 item after validation"),
    ("studies", study(oracle=True), "studies.s: oracle needs the key candidates"),
    (
        "studies",
        study(changes={"traning.epochs": 3}),
        "studies.s (s_0): unknown key 'traning'; did you mean 'training'",
    ),
    ("studies", study(vary=[*STUDY["vary"], *STUDY["vary"]]), "studies.s: vary: data.seed is given twice; give all"),
    ("studies", varied("seed", [0]), "studies.s.vary.0.setting: String should match pattern '^(data|backbone|"),
    ("studies", varied("data.sead", [1]), "studies.s (s_1).data: unknown key 'sead'; did you mean 'seed'? known: "),
    ("studies", varied("data.bias.strength", [3]), "studies.s (s_3).data.bias.strength: 3 is greater than the max"),
    ("studies", varied("data.bias.strength", [1, 1]), "the values '1', '1' of data.bias.strength look alike in file"),
    ("studies", varied("data.seed", [0], scale="ln"), "vary.0.scale: Input should be 'linear', 'log' or 'even'"),
    ("studies", {"mnist_x": STUDY}, "studies.mnist_x: files of experiment mnist may have that name; begin it with"),
    (
        "studies",
        {"s": {**CHOICE, "candidates": {"resnet": []}}},
        "candidates.resnet: Tuple should have at least 1 item",
    ),
    ("studies", {"s": {**CHOICE, "candidates": {"resnte": [{}]}}}, "unknown method 'resnte'; did you mean 'resnet'?"),
    ("overviews", {"o": {"of": {}}}, "overviews.o.of: Dictionary should have at least 1 item after validation"),
    ("overviews", {"o": {"of": {"A": "mnits"}}}, "overviews.o.of.A: unknown experiment or study 'mnits'; did you mean"),
    ("overviews", {"o": {"of": {"A": "mnist"}, "rows": ["x"]}}, "overviews.o.rows: unknown row 'x'; known: long, "),
    ("overviews", {"mnist": {"of": {"A": "mnist"}}}, "overviews.mnist: an experiment or a study has that name; choose"),
    ("segment", {"masks": "a.csv"}, "segment lacks the key 'manifest'"),
    ("segment", {**SEGMENT, "image_size": 100}, "segment.image_size: Input should be a multiple of 32, not 100"),
    ("segment", {**SEGMENT, "augmentation": {"scale": [2.0, 1.0]}}, "scale must be a smaller and a larger number"),
]

# What only data sets, methods and architectures can tell; the workflow asks them before its first job.
WRONG_FOR_THEM = [
    ("experiments.mnist.backbone.name", "resnet_smal", "unknown backbone 'resnet_smal'; similar or common ones: resn"),
    ("experiments.mnist.backbone.options", {"depth": 3}, "backbone resnet_small cannot be made with the options"),
    ("timing.backbone.name", "restnet18", "unknown backbone 'restnet18'; similar or common ones: "),
    ("experiments.mnist.data.bias", {"pattern": "corner_shape", "size": 3}, "bias: size must be at least 6 pixels"),
    ("experiments.mnist.data", {"name": "xray", "labels": ["a"]}, "labels must be two or more different names, not"),
    ("experiments.mnist.data", {"name": "xray", "manifest": "/a.csv"}, "manifest must lead down from the data root"),
    (ROW, isnet(c1=10.0, c2=1.0), "the foreground range needs 0 < c1 < c2, got c1=10.0, c2=1.0"),
    (ROW, isnet(c1=1.0), "c1 and c2 must either both be auto or both be numbers"),
    ("studies", varied("backbone.name", ["resnet_small", "restnet18"]), "unknown backbone 'restnet18'; similar or"),
]
