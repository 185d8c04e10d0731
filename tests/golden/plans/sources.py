"""Hand-written sources of the corpus's valid plans.

A source is the plan's text without its first two lines. `header` writes the lines that all plans of the corpus
share; programs are written by hand, `;` standing for a line end. Nothing here comes from the code under test.
"""

# ruff: noqa: E501, ISC004 - lines of plans as they are

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["VALID", "WORKED_EXAMPLE"]

SLOT_BYTES = 256
ARENA_BYTES = 65536
MODEL = "hidden=8 heads=2 kv_heads=2 head_dim=4 ffn=16 vocab=32 positions=16"


def header(
    *,
    stages: Sequence[str],
    place: str,
    buckets: Sequence[str],
    pools: Sequence[str],
    maps: Sequence[str],
    pp: int = 1,
    dp: int = 1,
    tp: int = 1,
    ep: int = 1,
    m: int = 1,
    slices: int = 1,
    layers: int = 2,
    kind: str = "gpt",
    tied: str = "no",
    clip: str = "0",
    clock: str = "barrier",
    serial: str = "yes",
    limit: int = 8,
    couple: str = "",
    budget: str = "",
    channels: Sequence[str] = (),
    groups: Sequence[str] = (),
    ties: Sequence[str] = (),
    info: Sequence[str] = ("made by=hand",),
    pool_at: Mapping[str, int] | None = None,
) -> str:
    """Header text; `pools` are ``R:letter*n`` words, one string per rank, laid one after the other from byte 16384."""
    lines = [
        f"model kind={kind} layers={layers} {MODEL} tied={tied} eps=1e-5 theta=1e4",
        f"train microbatch=1 m={m} seq=8 slices={slices} optimizer=adamw lr=1e-3 lr_min=0 warmup=0 steps=10 "
        f"beta1=0.9 beta2=0.95 eps=1e-8 decay=0.1 clip={clip} seed=7",
        "precision param=f32 grad=f32 act=f32 comm=f32 moment=f32",
        f"mesh tp={tp} cp=1 ep={ep} pp={pp} dp={dp} order=tp,cp,ep,dp,pp",
        *(f"stage {stage}" for stage in stages),
        f"place {place}",
        f"clock={clock}",
        f"serial={serial}",
        f"limit={limit}",
        *([f"couple {couple}"] if couple else []),
        *([f"budget {budget}"] if budget else []),
        *(f"chan {channel} depth=0 bytes={SLOT_BYTES}" for channel in channels),
        *(f"group {group}" for group in groups),
        *(f"bucket {bucket}" for bucket in buckets),
        *(f"tie {tie}" for tie in ties),
        *(f"arena pp={rank} bytes={ARENA_BYTES}" for rank in range(pp)),
    ]
    for rank in range(pp):
        for number, region in enumerate(("params", "grads", "moments")):
            lines.append(f"region pp={rank} {region} bytes=4096 at={number * 4096}")
    for rank, words in enumerate(pools):
        at = 16384
        for word in words.split():
            letter, number = word[0], int(word[1:])
            place_at = 0 if letter == "o" else (pool_at or {}).get(f"{rank}{letter}", at)
            lines.append(f"pool pp={rank} {letter} n={number} bytes={SLOT_BYTES} at={place_at}")
            at += number * SLOT_BYTES
    return "\n".join([*lines, *info, *(f"map {entry}" for entry in maps), ""])


def programs(**texts: str) -> str:
    """Programs by name, `;` for line ends; a repeated blank is layout."""
    lines: list[str] = []
    for name, text in texts.items():
        lines.append(f"program {name}")
        lines.extend(" ".join(line.split()) for line in text.split(";"))
    return "\n".join([*lines, ""])


WORKED_EXAMPLE = """\
model kind=gpt layers=2 hidden=64 heads=4 kv_heads=4 head_dim=16 ffn=256 vocab=256 positions=64 tied=no eps=1e-5 theta=1e4
train microbatch=4 m=2 seq=64 slices=1 optimizer=adamw lr=1e-3 lr_min=1e-4 warmup=10 steps=100 beta1=0.9 beta2=0.95 eps=1e-8 decay=0.1 clip=0 seed=1
precision param=f32 grad=f32 act=f32 comm=f32 moment=f32
mesh tp=1 cp=1 ep=1 pp=2 dp=1 order=tp,cp,ep,dp,pp
stage 0 layers=0..0 embedding
stage 1 layers=1..1 head
place 0=0 1=1
clock=barrier
serial=yes
limit=3
chan f 0>1 F depth=0 bytes=65536
chan b 1>0 B depth=0 bytes=65536
bucket 0/0 holds=wte,wpe,layers elements=70464
bucket 1/0 holds=layers,norm,head elements=66496
arena pp=0 bytes=2097152
arena pp=1 bytes=2097152
region pp=0 params bytes=281856 at=0
region pp=0 grads bytes=281856 at=281856
region pp=0 moments bytes=563712 at=563712
region pp=1 params bytes=265984 at=0
region pp=1 grads bytes=265984 at=265984
region pp=1 moments bytes=531968 at=531968
pool pp=0 h n=3 bytes=65536 at=1179648
pool pp=0 a n=2 bytes=131072 at=1376256
pool pp=0 w n=2 bytes=131072 at=1638400
pool pp=1 h n=3 bytes=65536 at=1179648
pool pp=1 a n=1 bytes=131072 at=1376256
pool pp=1 w n=1 bytes=131072 at=1638400
made by=hand
cost F=2000 I=1000 W=1000 OPT=1000 f.lat=500 b.lat=500
pred makespan_ns=14000 period_ns=13000
map pp=0 P0
map pp=1 P1
""" + programs(
    P0="""ZERO 0/0; F 0.0 h0 a0 w0; SF 0.0@f; F 0.1 h1 a1 w1; SF 0.1@f; RB 0.0@b h2; WS 0.0@f; RB 0.1@b h0;
        WR 0.0@b; B 0.0; WR 0.1@b; B 0.1; WS 0.1@f; OPT 0/0; END""",
    P1="""ZERO 1/0; RF 1.0@f h0; WR 1.0@f; RF 1.1@f h1; F 1.0 a0 w0; B 1.0 h2; SB 1.0@b; WR 1.1@f; F 1.1 a0 w0;
        WS 1.0@b; B 1.1 h2; SB 1.1@b; WS 1.1@b; OPT 1/0; END""",
)

_ONE = {"stages": ["0 layers=0..1 embedding head"], "place": "0=0", "maps": ["pp=0 P0"]}
_ONE_BUCKET = ["0/0 holds=wte,wpe,layers,norm,head elements=1024"]
_TWO = {
    "pp": 2,
    "stages": ["0 layers=0..0 embedding", "1 layers=1..1 head"],
    "place": "0=0 1=1",
    "maps": ["pp=0 P0", "pp=1 P1"],
    "channels": ["f 0>1 F", "b 1>0 B"],
}
_TWO_BUCKETS = ["0/0 holds=wte,wpe,layers elements=1024", "1/0 holds=layers,norm,head elements=1024"]


def _reduced(buckets: Sequence[str], group: str) -> list[str]:
    return [f"{bucket} reduce={group}" for bucket in buckets]


_GPIPE = programs(
    P0="""ZERO 0/0; F 0.0 h0 a0 w0; SF 0.0@f; F 0.1 h1 a1 w1; SF 0.1@f; WS 0.0@f; WS 0.1@f;
        RB 0.0@b h0; WR 0.0@b; B 0.0; RB 0.1@b h0; WR 0.1@b; B 0.1; OPT 0/0; END""",
    P1="""ZERO 1/0; RF 1.0@f h0; WR 1.0@f; F 1.0 a0 w0; RF 1.1@f h1; WR 1.1@f; F 1.1 a1 w1;
        B 1.0 h2; SB 1.0@b; WS 1.0@b; B 1.1 h2; SB 1.1@b; WS 1.1@b; OPT 1/0; END""",
)
_INTERLEAVED = programs(
    P0="""ZERO 0/0; ZERO 2/0; F 0.0 h0 a0 w0; SF 0.0@f01; RF 2.0@f10 h2; F 0.1 h1 a1 w1; SF 0.1@f01; RF 2.1@f10 h3;
        WS 0.0@f01; WR 2.0@f10; F 2.0 h0 a2 w2; SF 2.0@f01; WS 0.1@f01; WR 2.1@f10; F 2.1 h1 a3 w3; SF 2.1@f01;
        RB 2.0@b10 h4; WR 2.0@b10; WS 2.0@f01; B 2.0 h0; SB 2.0@b01; RB 2.1@b10 h5; WR 2.1@b10; WS 2.1@f01;
        B 2.1 h1; SB 2.1@b01; RB 0.0@b10 h4; WS 2.0@b01; WR 0.0@b10; B 0.0; RB 0.1@b10 h5; WS 2.1@b01; WR 0.1@b10;
        B 0.1; OPT 0/0; OPT 2/0; END""",
    P1="""ZERO 1/0; ZERO 3/0; RF 1.0@f01 h0; WR 1.0@f01; F 1.0 h1 a0 w0; SF 1.0@f10; RF 1.1@f01 h2; WR 1.1@f01;
        F 1.1 h3 a1 w1; SF 1.1@f10; RF 3.0@f01 h4; WS 1.0@f10; WR 3.0@f01; F 3.0 a2 w2; B 3.0 h1; SB 3.0@b10;
        RF 3.1@f01 h5; WS 1.1@f10; WR 3.1@f01; F 3.1 a2 w2; WS 3.0@b10; B 3.1 h1; SB 3.1@b10; RB 1.0@b01 h3;
        WS 3.1@b10; WR 1.0@b01; B 1.0 h1; SB 1.0@b10; RB 1.1@b01 h4; WR 1.1@b01; WS 1.0@b10; B 1.1 h1; SB 1.1@b10;
        WS 1.1@b10; OPT 1/0; OPT 3/0; END""",
)
_ZERO_BUBBLE = programs(
    P0="""ZERO 0/0; F 0.0 h0 a0 w0; SF 0.0@f; F 0.1 h1 a1 w1; SF 0.1@f; RB 0.0@b h2; WR 0.0@b; I 0.0 g0; WS 0.0@f;
        WS 0.1@f; RB 0.1@b h0; WR 0.1@b; I 0.1 g1; W 0.0; W 0.1; OPT 0/0; END""",
    P1="""ZERO 1/0; RF 1.0@f h0; WR 1.0@f; F 1.0 a0 w0; RF 1.1@f h2; I 1.0 h1 g0; SB 1.0@b; WR 1.1@f; F 1.1 a0 w1;
        WS 1.0@b; I 1.1 h1 g1; SB 1.1@b; W 1.0; WS 1.1@b; W 1.1; OPT 1/0; END""",
)
_REPEATED = programs(
    P0="""ZERO 0/0; REP i=0..1 {; F 0.(i) h(i) a(i) w(i); SF 0.(i)@f; }; REP i=0..1 {; WS 0.(i)@f; };
        REP j=0..1 {; RB 0.(j)@b h((j+1)%2); WR 0.(j)@b; B 0.(j); }; OPT 0/0; END""",
    P1="""ZERO 1/0; RF 1.0@f h0; REP i=0..0 {; WR 1.(i)@f; RF 1.(i+1)@f h(i+1); F 1.(i) a(i) w(i); }; WR 1.1@f;
        F 1.1 a1 w1; REP i=1..2 {; B 1.(i-1) h2; SB 1.(1i-1)@b; WS 1.((i+1)%2)@b; }; OPT 1/0; END""",
)
_REDUCED = {
    "P0": """ZERO 0/0; F 0.0 h0 a0 w0; SF 0.0@f; WS 0.0@f; RB 0.0@b h0; WR 0.0@b; B 0.0; AR 0/0@dp; WC 0/0@dp;
        NORM @norm; WC @norm; OPT 0/0; END""",
    "P1": """ZERO 1/0; RF 1.0@f h0; WR 1.0@f; F 1.0 a0 w0; B 1.0 h1; SB 1.0@b; AR 1/0@dp; WS 1.0@b; WC 1/0@dp;
        NORM @norm; WC @norm; OPT 1/0; END""",
    "P0r": """ZERO 0/0; RB 0.0@b h1; F 0.0 h0 a0 w0; SF 0.0@f; WR 0.0@b; B 0.0; WS 0.0@f; AR 0/0@dp; WC 0/0@dp;
        NORM @norm; WC @norm; OPT 0/0; END""",
}
_REDUCED_HEAD = {
    "dp": 2,
    "clip": "1",
    "groups": ["dp axes=dp", "norm axes=pp"],
    "buckets": _reduced(_TWO_BUCKETS, "dp"),
    "pools": ["h2 a1 w1", "h2 a1 w1"],
}
_CROSSED = programs(
    P0="""ZERO 0/0; RB 0.0@b h1; F 0.0 h0 a0 w0; SF 0.0@f; WS 0.0@f; WR 0.0@b; B 0.0; OPT 0/0; END""",
    P1="""ZERO 1/0; RF 1.0@f h0; WR 1.0@f; F 1.0 a0 w0; B 1.0 h1; SB 1.0@b; WS 1.0@b; OPT 1/0; END""",
)
_PLAIN = programs(P0="ZERO 0/0; F 0.0 a0 w0; B 0.0; F 0.1 a0 w0; B 0.1; OPT 0/0; END")

VALID: dict[str, str] = {
    "worked-example": WORKED_EXAMPLE,
    "gpipe": header(**_TWO, m=2, buckets=_TWO_BUCKETS, pools=["h2 a2 w2", "h3 a2 w2"]) + _GPIPE,
    "interleaved": header(
        pp=2, m=2, layers=4, serial="no",
        stages=["0 layers=0..0 embedding", "1 layers=1..1", "2 layers=2..2", "3 layers=3..3 head"],
        place="0=0 1=1 2=0 3=1", maps=["pp=0 P0", "pp=1 P1"],
        channels=["f01 0>1 F", "f10 1>0 F", "b10 1>0 B", "b01 0>1 B"],
        buckets=["0/0 holds=wte,wpe,layers elements=1024", "1/0 holds=layers elements=1024",
                 "2/0 holds=layers elements=1024", "3/0 holds=layers,norm elements=512", "3/1 holds=head elements=512"],
        pools=["h6 a4 w4", "h6 a3 w3"],
    ) + _INTERLEAVED.replace("ZERO 3/0\n", "ZERO 3/0\nZERO 3/1\n").replace("OPT 3/0\n", "OPT 3/0\nOPT 3/1\n"),
    "zb-h1": header(**_TWO, m=2, buckets=_TWO_BUCKETS, pools=["h3 a2 w2 g2", "h3 a1 w2 g2"]) + _ZERO_BUBBLE,
    "rep": header(**_TWO, m=2, buckets=_TWO_BUCKETS, pools=["h2 a2 w2", "h3 a2 w2"]) + _REPEATED,
    "single-stage": header(**_ONE, m=2, buckets=_ONE_BUCKET, pools=["a1 w1"]) + _PLAIN,
    "llama-gqa": (header(**_ONE, m=2, kind="llama", buckets=["0/0 holds=wte,layers,norm,head elements=1024"], pools=["a1 w1"])
                  + _PLAIN).replace("heads=2 kv_heads=2", "heads=2 kv_heads=1"),
    "local-hand-over": header(
        stages=_TWO["stages"], place="0=0 1=0", maps=["pp=0 P0"], buckets=_TWO_BUCKETS, pools=["h2 a2 w2"],
    ) + programs(P0="""ZERO 0/0; ZERO 1/0; F 0.0 h0 a0 w0; LF 0.0; F 1.0 a1 w1; B 1.0 h1; LB 1.0; B 0.0; OPT 0/0;
        OPT 1/0; END"""),
    "data-parallel": header(**_TWO, **_REDUCED_HEAD)
    + programs(P0=_REDUCED["P0"], P1=_REDUCED["P1"]),
    "override": header(
        **{**_TWO, "maps": ["pp=0 P0", "pp=1 P1", "pp=0,dp=1 P0r"]}, **{**_REDUCED_HEAD, "serial": "no"},
    ) + programs(**_REDUCED),
    "all-replicas-overridden": header(
        **{**_TWO, "maps": ["pp=0 P0", "pp=1 P1", "pp=0,dp=0 P0r", "pp=0,dp=1 P0"]}, **{**_REDUCED_HEAD, "serial": "no"},
    ) + programs(P0=_REDUCED["P0"], P1=_REDUCED["P1"], P0r=_REDUCED["P0r"]),
    "tied-two-ranks": header(
        **_TWO, tied="yes", groups=["tie axes=pp pp=0,1"], ties=["0/0 1/1"],
        buckets=["0/0 holds=wte elements=256 reduce=tie", "0/1 holds=wpe,layers elements=512",
                 "1/0 holds=layers,norm elements=512", "1/1 holds=head elements=256 reduce=tie"],
        pools=["h2 a1 w1", "h2 a1 w1"],
    ) + programs(
        P0="""ZERO 0/0; ZERO 0/1; F 0.0 h0 a0 w0; SF 0.0@f; WS 0.0@f; RB 0.0@b h1; WR 0.0@b; B 0.0; AR 0/0@tie; OPT 0/1;
            WC 0/0@tie; OPT 0/0; END""",
        P1="""ZERO 1/0; ZERO 1/1; RF 1.0@f h0; WR 1.0@f; F 1.0 a0 w0; B 1.0 h1; SB 1.0@b; WS 1.0@b; OPT 1/0; AR 1/1@tie;
            WC 1/1@tie; OPT 1/1; END""",
    ),
    "tied-one-rank": header(
        stages=_TWO["stages"], place="0=0 1=0", maps=["pp=0 P0"], tied="yes",
        buckets=["0/0 holds=wte,wpe,layers elements=1024", "1/0 holds=layers,norm elements=512"], pools=["h2 a2 w2"],
    ) + programs(P0="""ZERO 0/0; ZERO 1/0; F 0.0 h0 a0 w0; LF 0.0; F 1.0 a1 w1; B 1.0 h1; LB 1.0; B 0.0; OPT 1/0;
        OPT 0/0; END"""),
    "recompute": header(**_TWO, buckets=_TWO_BUCKETS, pools=["h2 a1 w1", "h2 a1 w1"]) + programs(
        P0="""ZERO 0/0; F 0.0 h0; SF 0.0@f; WS 0.0@f; RC 0.0 a0 w0; RB 0.0@b h1; WR 0.0@b; B 0.0; OPT 0/0; END""",
        P1="""ZERO 1/0; RF 1.0@f h0; WR 1.0@f; F 1.0; RC 1.0 a0 w0; B 1.0 h1; SB 1.0@b; WS 1.0@b; OPT 1/0; END""",
    ),
    "offload": header(**_ONE, m=2, buckets=_ONE_BUCKET, pools=["a2 w2 o1"]) + programs(
        P0="""ZERO 0/0; F 0.0 a0 w0; OFF 0.0 o0; WOFF 0.0; F 0.1 a0 w0; LD 0.0 a1 w1; B 0.1; WLD 0.0; B 0.0; OPT 0/0;
            END"""),
    "free-clock": header(
        **_TWO, clock="free", clip="1", groups=["up axes=pp scan=up", "down axes=pp scan=down"], buckets=_TWO_BUCKETS,
        pools=["h2 a1 w1", "h2 a1 w1"],
    ) + programs(
        P0="""CHK @down; WC @down; PV 0/0; UNDO 0/0; ZERO 0/0; F 0.0 h0 a0 w0; SF 0.0@f; WS 0.0@f; RB 0.0@b h1; WR 0.0@b;
            B 0.0; NORM @up; WC @up; OPT 0/0; END""",
        P1="""CHK @down; WC @down; PV 1/0; UNDO 1/0; ZERO 1/0; RF 1.0@f h0; WR 1.0@f; F 1.0 a0 w0; B 1.0 h1; SB 1.0@b;
            WS 1.0@b; NORM @up; WC @up; OPT 1/0; END""",
    ),
    "slices": header(**_ONE, slices=2, buckets=_ONE_BUCKET, pools=["a2 w2 k1"]) + programs(
        P0="ZERO 0/0; F 0.0.0 a0 w0 k0; F 0.0.1 a1 w1; B 0.0.1; B 0.0.0; OPT 0/0; END"),
    "parts": header(
        **{**_ONE, "stages": ["0 layers=0..1 embedding head parts=attn,mlp"]}, m=2, ep=2, groups=["ep axes=ep"],
        buckets=_ONE_BUCKET, pools=["a1 w1 g1"],
    ) + programs(
        P0="""ZERO 0/0; F 0.0:attn a0 w0; A2A_D F 0.0:attn@ep; WC F 0.0:attn@ep; F 0.0:mlp; A2A_C F 0.0:mlp@ep;
            WC F 0.0:mlp@ep; B 0.0:mlp; KV B 0.0:mlp@ep; WC B 0.0:mlp@ep; B 0.0:attn; F 0.1:attn a0 w0; F 0.1:mlp;
            I 0.1:mlp g0; A2A_D I 0.1:mlp@ep; W 0.1:mlp; WC I 0.1:mlp@ep; I 0.1:attn; W 0.1:attn; OPT 0/0; END"""),
    "sharded": header(
        **_ONE, m=2, dp=2, groups=["dp axes=dp"], pools=["a1 w1 p1 q1"],
        buckets=["0/0 holds=wte,wpe,layers,norm,head elements=1024 shard=dp reduce=dp"],
    ) + programs(
        P0="""AG 0/0@dp p0; ZERO 0/0 q0; WC 0/0@dp; F 0.0 a0 w0; B 0.0; RS 0/0@dp; WC 0/0@dp; ZERO 0/0 q0; F 0.1 a0 w0;
            B 0.1; RS 0/0@dp; FREE 0/0; WC 0/0@dp; OPT 0/0; END"""),
    "braid": header(**_TWO, m=2, buckets=_TWO_BUCKETS, pools=["h2 a2 w2", "h3 a2 w2"]) + programs(
        P0=_GPIPE.split("program P0\n")[1].split("program P1\n")[0].strip().replace("\n", ";"),
        P1="""ZERO 1/0; RF 1.0@f h0; RF 1.1@f h1; WR 1.0@f; F 1.0 a0 w0; WR 1.1@f; FB{F 1.1 a1 w1|B 1.0 h2}; SB 1.0@b;
            WS 1.0@b; B 1.1 h0; SB 1.1@b; WS 1.1@b; OPT 1/0; END""",
    ),
    "stage-on-two-ranks": header(
        pp=2, m=2, stages=_ONE["stages"], place="0=0,1", maps=["pp=0 P0", "pp=1 P1"], groups=["twin axes=pp"],
        buckets=_reduced(_ONE_BUCKET, "twin"), pools=["a1 w1", "a1 w1"],
    ) + programs(
        P0="ZERO 0/0; F 0.0 a0 w0; B 0.0; AR 0/0@twin; WC 0/0@twin; OPT 0/0; END",
        P1="ZERO 0/0; F 0.1 a0 w0; B 0.1; AR 0/0@twin; WC 0/0@twin; OPT 0/0; END",
    ),
    "two-reductions": header(
        pp=2, dp=2, m=2, stages=_ONE["stages"], place="0=0,1", maps=["pp=0 P0", "pp=1 P1"],
        groups=["dp axes=dp", "twin axes=pp"], buckets=_reduced(_ONE_BUCKET, "dp,twin"), pools=["a1 w1", "a1 w1"],
    ) + programs(
        P0="ZERO 0/0; F 0.0 a0 w0; B 0.0; AR 0/0@dp; AR 0/0@twin; WC 0/0@dp; WC 0/0@twin; OPT 0/0; END",
        P1="ZERO 0/0; F 0.1 a0 w0; B 0.1; AR 0/0@dp; AR 0/0@twin; WC 0/0@dp; WC 0/0@twin; OPT 0/0; END",
    ),
    "all-information-lines": header(
        **_ONE, m=2, tp=2, couple="F=tp B=tp", budget="bytes=65536", buckets=_ONE_BUCKET, pools=["a1 w1"],
        info=["made by=hand arg=--m=2 version=0.1", "cost F=2000 f0.lat=500", "cost B=4000", "pred makespan_ns=14000 band=1.5%",
              "x-note anything  printable: {}()~", "x-other 1"],
    ) + _PLAIN.replace("B 0.0\n", "B 0.0\nMARK half_way\n"),
    "not-serial": header(**_TWO, serial="no", buckets=_TWO_BUCKETS, pools=["h2 a1 w1", "h2 a1 w1"]) + _CROSSED,
    "overlapping-pools": header(
        **_TWO, buckets=_TWO_BUCKETS, pools=["h2 a1 w1 g1", "h2 a1 w1 g1"], pool_at={"0g": 16384},
    ) + programs(
        P0="ZERO 0/0; F 0.0 h0 a0 w0; SF 0.0@f; RB 0.0@b h1; WS 0.0@f; WR 0.0@b; I 0.0 g0; W 0.0; OPT 0/0; END",
        P1="""ZERO 1/0; RF 1.0@f h0; WR 1.0@f; F 1.0 a0 w0; I 1.0 h1 g0; SB 1.0@b; W 1.0; WS 1.0@b; OPT 1/0; END""",
    ),
    "fan-out": header(
        pp=3, m=2, stages=_TWO["stages"], place="0=0 1=1,2", maps=["pp=0 P0", "pp=1 P1", "pp=2 P2"],
        channels=["f1 0>1 F", "f2 0>2 F", "b1 1>0 B", "b2 2>0 B"], groups=["twin axes=pp pp=1,2"],
        buckets=[_TWO_BUCKETS[0], f"{_TWO_BUCKETS[1]} reduce=twin"], pools=["h2 a2 w2", "h2 a1 w1", "h2 a1 w1"],
    ) + programs(
        P0="""ZERO 0/0; F 0.0 h0 a0 w0; SF 0.0@f1; F 0.1 h1 a1 w1; SF 0.1@f2; WS 0.0@f1; WS 0.1@f2; RB 0.0@b1 h0;
            WR 0.0@b1; B 0.0; RB 0.1@b2 h0; WR 0.1@b2; B 0.1; OPT 0/0; END""",
        P1="""ZERO 1/0; RF 1.0@f1 h0; WR 1.0@f1; F 1.0 a0 w0; B 1.0 h1; SB 1.0@b1; WS 1.0@b1; AR 1/0@twin; WC 1/0@twin;
            OPT 1/0; END""",
        P2="""ZERO 1/0; RF 1.1@f2 h0; WR 1.1@f2; F 1.1 a0 w0; B 1.1 h1; SB 1.1@b2; WS 1.1@b2; AR 1/0@twin; WC 1/0@twin;
            OPT 1/0; END""",
    ),
    "three-ranks": header(
        pp=3, m=2, layers=3, serial="no", stages=["0 layers=0..0 embedding", "1 layers=1..1", "2 layers=2..2 head"],
        place="0=0 1=1 2=2", maps=["pp=0 P0", "pp=1 P1", "pp=2 P2"],
        channels=["f0 0>1 F", "f1 1>2 F", "b0 1>0 B", "b1 2>1 B"],
        buckets=[_TWO_BUCKETS[0], "1/0 holds=layers elements=1024", "2/0 holds=layers,norm,head elements=1024"],
        pools=["h3 a2 w2", "h6 a2 w2", "h3 a1 w1"],
    ) + programs(
        P0="""ZERO 0/0; F 0.0 h0 a0 w0; SF 0.0@f0; F 0.1 h1 a1 w1; SF 0.1@f0; RB 0.0@b0 h2; WS 0.0@f0; WR 0.0@b0; B 0.0;
            RB 0.1@b0 h0; WS 0.1@f0; WR 0.1@b0; B 0.1; OPT 0/0; END""",
        P1="""ZERO 1/0; RF 1.0@f0 h0; WR 1.0@f0; F 1.0 h1 a0 w0; SF 1.0@f1; RF 1.1@f0 h2; WR 1.1@f0; F 1.1 h3 a1 w1;
            SF 1.1@f1; RB 1.0@b1 h4; WS 1.0@f1; WR 1.0@b1; B 1.0 h1; SB 1.0@b0; RB 1.1@b1 h5; WS 1.1@f1; WR 1.1@b1;
            WS 1.0@b0; B 1.1 h1; SB 1.1@b0; WS 1.1@b0; OPT 1/0; END""",
        P2="""ZERO 2/0; RF 2.0@f1 h0; WR 2.0@f1; F 2.0 a0 w0; B 2.0 h1; SB 2.0@b1; RF 2.1@f1 h2; WR 2.1@f1; F 2.1 a0 w0;
            WS 2.0@b1; B 2.1 h1; SB 2.1@b1; WS 2.1@b1; OPT 2/0; END""",
    ),
    "two-buckets": header(
        **{**_ONE, "maps": ["pp=0 P0", "pp=0,dp=1 P0r"]}, dp=2, groups=["dp axes=dp", "dq axes=dp"], pools=["a1 w1"],
        buckets=["0/0 holds=wte,wpe elements=512 reduce=dp", "0/1 holds=layers,norm,head elements=512 reduce=dq"],
    ) + programs(
        P0="""ZERO 0/0; ZERO 0/1; F 0.0 a0 w0; B 0.0; AR 0/0@dp; AR 0/1@dq; WC 0/0@dp; WC 0/1@dq; OPT 0/0; OPT 0/1; END""",
        P0r="""ZERO 0/1; ZERO 0/0; F 0.0 a0 w0; B 0.0; AR 0/0@dp; AR 0/1@dq; WC 0/0@dp; WC 0/1@dq; OPT 0/1; OPT 0/0; END""",
    ),
}  # fmt: skip
