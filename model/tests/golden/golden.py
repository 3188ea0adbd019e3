"""Writes and checks golden batches with kafka-python (see README.md).

    golden.py write DIR    writes DIR/kafka-python-<codec>.hex
    golden.py check DIR    reads DIR/alluvium-<codec>.hex and compares its records
"""
import pathlib
import sys

from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
RECORDS = [
    (1700000000000, b"device-17", b"21.5", []),
    (1700000000007, None, b"", [("unit", b"C"), ("empty", b""), ("unit", None)]),
    (1699999999000, "Gerät".encode(), None, []),
    (1700000000001, b"", b"0123456789abcdef" * 2100, [("n", bytes(range(256)))]),
]


def write(folder):
    for number, codec in enumerate(CODECS):
        builder = DefaultRecordBatchBuilder(
            magic=2, compression_type=number, is_transactional=False, producer_id=4001, producer_epoch=3,
            base_sequence=70000, batch_size=1 << 20)
        for offset, (timestamp, key, value, headers) in enumerate(RECORDS):
            assert builder.append(offset, timestamp=timestamp, key=key, value=value, headers=headers)
        text = bytes(builder.build()).hex()
        lines = [text[at:at + 128] for at in range(0, len(text), 128)]
        (folder / f"kafka-python-{codec}.hex").write_text("\n".join(lines) + "\n")


def check(folder):
    for number, codec in enumerate(CODECS):
        data = bytes.fromhex((folder / f"alluvium-{codec}.hex").read_text())
        batch = DefaultRecordBatch(data)
        assert batch.validate_crc(), codec
        assert batch.compression_type == number, codec
        assert (batch.producer_id, batch.producer_epoch, batch.base_sequence) == (4001, 3, 70000), codec
        assert batch.base_offset == 1000 and batch.max_timestamp == 1700000000007, codec
        got = [(r.timestamp, r.key, r.value, r.headers) for r in batch]
        assert got == RECORDS, codec
        assert [r.offset for r in DefaultRecordBatch(data)] == [1000, 1001, 1002, 1003], codec
        print(codec, "ok", len(data), "bytes")


{"write": write, "check": check}[sys.argv[1]](pathlib.Path(sys.argv[2]))
