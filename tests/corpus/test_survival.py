"""What a tokenizer loses is measured: unknown tokens, and bytes that do not come back."""

import json

import pytest
from samples import DOCS
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from proxytrain.corpus import prepare, preview

END = "<|endoftext|>"
TEXTS = [f"{text}\nA second Line, with MORE!\n" for text in DOCS[:120]]


def byte_level(space: bool = False, decoder: bool = True, normalizer=None) -> Tokenizer:
    ready = Tokenizer(models.BPE())
    ready.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    if decoder:
        ready.decoder = decoders.ByteLevel()
    if normalizer:
        ready.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=[END], initial_alphabet=alphabet, show_progress=False)
    ready.train_from_iterator(TEXTS, trainer)
    return ready


def word_piece() -> Tokenizer:
    ready = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    ready.pre_tokenizer, ready.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    ready.normalizer = normalizers.BertNormalizer()
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=["[UNK]", END], show_progress=False)
    ready.train_from_iterator(TEXTS, trainer)
    return ready


def word_level() -> Tokenizer:
    ready = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    ready.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(vocab_size=9, special_tokens=["[UNK]", END], show_progress=False)
    ready.train_from_iterator(TEXTS, trainer)
    return ready


def metaspace() -> Tokenizer:
    ready = Tokenizer(models.Unigram())
    ready.pre_tokenizer, ready.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = ["<unk>", "</s>"]
    trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=special, unk_token="<unk>", show_progress=False)
    ready.train_from_iterator(TEXTS, trainer)
    return ready


@pytest.fixture
def prepared(tmp_path, files_data):
    """Prepares the texts with a tokenizer; the corpus and the notices."""
    for k, text in enumerate(TEXTS):
        (tmp_path / f"{k:03}.txt").write_text(text)

    def make(ready: Tokenizer, **keys):
        ready.save(str(tmp_path / "tokenizer.json"))
        data = files_data(files=[f"{tmp_path}/*.txt"], tokenizer=str(tmp_path / "tokenizer.json"), **keys)
        notices: list[str] = []
        return prepare(data, tmp_path / "root", notice=notices.append), notices

    return make


@pytest.mark.parametrize("unit", ["document", "line"])
@pytest.mark.parametrize(
    "make",
    [
        byte_level,
        lambda: byte_level(decoder=False),
        lambda: byte_level(space=True),
        lambda: byte_level(normalizer=normalizers.NFC()),
        metaspace,
    ],
    ids=["byte level", "without its decoder", "with a space before", "NFC", "metaspace"],
)
def test_a_tokenizer_that_loses_nothing_counts_all_bytes(prepared, make, unit):
    corpus, notices = prepared(make(), unit=unit, val_tokens=10**6)
    assert not notices
    assert corpus.manifest.surviving_share == 1
    ends = corpus.manifest.val_documents if unit == "document" else 0
    text = corpus.manifest.bytes_per_token * corpus.manifest.val_tokens
    assert text == pytest.approx(round(text))
    assert corpus.manifest.val_tokens > ends


@pytest.mark.parametrize("make", [word_piece, word_level, lambda: byte_level(normalizer=normalizers.Lowercase())])
def test_bits_per_byte_are_withheld_with_the_reason(prepared, make):
    corpus, notices = prepared(make())
    assert corpus.manifest.bytes_per_token is None
    assert corpus.manifest.surviving_share < 0.99
    assert "Bits per byte are withheld" in notices[0]


def test_a_few_lost_bytes_are_not_counted(prepared):
    whole, _ = prepared(byte_level(), val_tokens=10**6)
    corpus, notices = prepared(byte_level(normalizer=normalizers.Replace("!", "")), val_tokens=10**6)
    all_bytes = whole.manifest.bytes_per_token * whole.manifest.val_tokens
    kept = corpus.manifest.bytes_per_token * corpus.manifest.val_tokens
    assert kept == pytest.approx(all_bytes - whole.manifest.val_documents)  # one mark per document
    assert "Bits per byte count only these" in notices[0]


def test_the_share_of_unknown_tokens_is_that_of_the_training_tokens(prepared):
    ready = word_level()
    corpus, notices = prepared(ready)
    unknown = ready.token_to_id("[UNK]")
    assert corpus.manifest.unknown_share == pytest.approx(float((corpus.train[:] == unknown).mean()))
    assert f"{100 * corpus.manifest.unknown_share:.3g}% of the training tokens are unknown ([UNK])" in notices[1]
    assert "of the tokens are unknown" in preview(corpus).lines(corpus)[0]


def test_ends_of_documents_are_not_unknown_tokens(prepared):
    ready = byte_level()
    model = json.loads(ready.to_str())
    model["model"]["unk_token"] = END
    corpus, notices = prepared(Tokenizer.from_str(json.dumps(model)))
    assert (corpus.manifest.unknown_share, notices) == (0, [])
