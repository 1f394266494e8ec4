"""Operators of neurons with a memory over timesteps; T is the outer part of the batch axis.

One membrane, one rule: H = decay * V + I, s = levels that H reaches, V = H - s * threshold
('soft') or 0 if s > 0 else H ('hard'); V is 0 at first. With reset 'delayed' V = H, and the next
H is lowered by s * threshold once V has decayed. With 'raised' V is that of 'soft', and while V
itself would fire, H must reach one threshold more. I is the drive, or a current that remembers:
I = current * I + x.
"""

from __future__ import annotations

from snncc.ir.op import F32, GAPS, I32, I64, U8, Op
from snncc.ir.traits import Numbers, Traits

__all__ = ["STATE_OPS"]

#: [T*N, C, ...] of the operator's first input as ``x`` [T, N, C, ...]; ``t`` is T.
_APART = """
    any = Constant <value_ints: ints = [-1]> ()
    one = Constant <value_ints: ints = [1]> ()
    two = Constant <value_ints: ints = [2]> ()
    end = Constant <value_ints: ints = [9223372036854775807]> ()
    go = Constant <value: tensor = bool {1}> ()
    t = Constant <value_int: int = @T> ()
    t_1 = Reshape (t, any)
    size = Shape (INPUT)
    sample = Slice (size, one, end)
    apart = Concat <axis: int = 0> (t_1, any, sample)
    x = Reshape (INPUT, apart)
    first = Constant <value_int: int = 0> ()
    x_0 = Gather <axis: int = 0> (x, first)
    start = Sub (x_0, x_0)
    reset_rule = Constant <value_string: string = @reset> ()
    hard_name = Constant <value_string: string = "hard"> ()
    is_hard = Equal (reset_rule, hard_name)
    delayed_name = Constant <value_string: string = "delayed"> ()
    is_delayed = Equal (reset_rule, delayed_name)
    raised_name = Constant <value_string: string = "raised"> ()
    is_raised = Equal (reset_rule, raised_name)
    none = Constant <value_ints: ints = [0]> ()
    rank = Shape (sample)
    behind = Sub (rank, one)
    behind_channels = Max (behind, none)
    tail = ConstantOfShape <value: tensor = int64[1] {1}> (behind_channels)
    by_channel = Concat <axis: int = 0> (any, tail)
"""

_STATEFUL_FIRE = Op(
    "StatefulFire",
    "imported",
    "Neuron with a memory over T timesteps, X [T*N, ...]: H = decay * V + gain * I fires s spikes, "
    "given as s / norm; I = current * I + X. Rules: '>=' counts thresholds that H reaches, to D, "
    "'>' compares it with one (D = 1), 'half-even' and 'half-up' round clip(H / threshold, 0, D). "
    "Reset: 'soft': V = H - s * threshold; 'hard': 0 after a spike; 'delayed': V = H, and s * "
    "threshold is taken off the next H; 'raised': as 'soft', but H must reach one threshold more "
    "where V would fire; 'none': V = H. decay and current are one number, or one of each channel.",
    {"X": F32},
    {"Y": F32},
    {
        "T": "int", "D": "int", "decay": "floats", "gain": "float", "threshold": "float",
        "norm": "float", "rule": "string", "reset": "string", "current": "floats",
    },
    _APART.replace("INPUT", "X") + """
    decays = Constant <value_floats: floats = @decay> ()
    decay = Reshape (decays, by_channel)
    gain = Constant <value_float: float = @gain> ()
    theta = Constant <value_float: float = @threshold> ()
    alphas = Constant <value_floats: floats = @current> ()
    alpha = Reshape (alphas, by_channel)
    zero = Constant <value_float: float = 0.0> ()
    none_name = Constant <value_string: string = "none"> ()
    is_none = Equal (reset_rule, none_name)
    loss = Where (is_none, zero, theta)
    half = Constant <value_float: float = 0.5> ()
    levels = Constant <value_int: int = @D> ()
    top = Cast <to: int = 1> (levels)
    rule = Constant <value_string: string = @rule> ()
    reach_name = Constant <value_string: string = ">="> ()
    above_name = Constant <value_string: string = ">"> ()
    up_name = Constant <value_string: string = "half-up"> ()
    is_reach = Equal (rule, reach_name)
    is_above = Equal (rule, above_name)
    is_up = Equal (rule, up_name)
    rest, left, last, S = Loop <body: graph = step (int64 i, bool on, float[] v, float[] owed,
                                float[] flow) => (bool still_on, float[] carried, float[] due,
                                float[] flows, float[] s) {
      still_on = Identity (on)
      drive = Gather <axis: int = 0> (x, i)
      kept = Mul (v, decay)
      flown = Mul (flow, alpha)
      flows = Add (flown, drive)
      driven = Mul (flows, gain)
      charged = Add (kept, driven)
      stays_at = GreaterOrEqual (v, theta)
      stays_above = Greater (v, theta)
      reaches_yet = And (stays_at, is_reach)
      stays = Or (stays_above, reaches_yet)
      fires_yet = And (stays, is_raised)
      raised = Where (fires_yet, theta, zero)
      lowered_h = Sub (charged, owed)
      h = Sub (lowered_h, raised)
      exceeds = Greater (h, theta)
      exceeded = Cast <to: int = 1> (exceeds)
      relative = Div (h, theta)
      u = Clip (relative, zero, top)
      reached = Floor (u)
      even = Round (u)
      shifted = Add (u, half)
      up = Floor (shifted)
      rounded = Where (is_up, up, even)
      not_reach = Where (is_above, exceeded, rounded)
      s = Where (is_reach, reached, not_reach)
      taken = Mul (s, loss)
      soft = Sub (lowered_h, taken)
      silent = Equal (s, zero)
      hard = Where (silent, h, zero)
      at_once = Where (is_hard, hard, soft)
      carried = Where (is_delayed, h, at_once)
      nothing = Sub (taken, taken)
      due = Where (is_delayed, taken, nothing)
    }> (t, go, start, start, start)
    a = Reshape (S, size)
    n = Constant <value_float: float = @norm> ()
    Y = Div (a, n)
    """,
    Traits(
        Numbers.POTENTIALS, Numbers.COUNTS, becomes="StatefulFireCount", remembers=True,
        rounds=True, keeps_shape=True,
    ),
)  # fmt: skip

#: One timestep in integers: H with ``fraction`` further bits from V; products round down.
_CHARGE = """
      scaled = Mul (v, p)
      over = Mod (scaled, radix)
      whole = Sub (scaled, over)
      kept = Div (whole, radix)
      scaled_flow = Mul (flow, p_flow)
      over_flow = Mod (scaled_flow, radix_flow)
      whole_flow = Sub (scaled_flow, over_flow)
      flown = Div (whole_flow, radix_flow)
      drive = Gather <axis: int = 0> (x, i)
      wide = Mul (drive, unit)
      flows = Add (flown, wide)
      charged = Add (kept, flows)
      stays = GreaterOrEqual (v, level_1)
      fires_yet = And (stays, is_raised)
      raised = Where (fires_yet, theta, first)
      lowered_h = Sub (charged, owed)
      h = Sub (lowered_h, raised)
"""

_CARRY = """
      taken = Mul (count, theta)
      soft = Sub (lowered_h, taken)
      silent = Equal (count, first)
      hard = Where (silent, h, first)
      at_once = Where (is_hard, hard, soft)
      carried = Where (is_delayed, h, at_once)
      nothing = Sub (taken, taken)
      due = Where (is_delayed, taken, nothing)
"""

_NUMBERS = _APART.replace("INPUT", "V") + """
    base = Constant <value_int: int = 2> ()
    k = Constant <value_int: int = @shift> ()
    radix = Pow (base, k)
    f = Constant <value_int: int = @fraction> ()
    unit = Pow (base, f)
    numerators = Constant <value_ints: ints = @numerator> ()
    p = Reshape (numerators, by_channel)
    k_flow = Constant <value_int: int = @current_shift> ()
    radix_flow = Pow (base, k_flow)
    slow = Constant <value_ints: ints = @current> ()
    p_flow = Reshape (slow, by_channel)
    table = Shape (levels)
    D = Slice (table, one, two)
    ticks = Squeeze (D)
    theta = Reshape (threshold, by_channel)
"""  # fmt: skip

_STATE_INPUTS: dict[str, tuple[str, ...]] = {"V": I64, "levels": I64, "threshold": I64}
_STATE_ATTRIBUTES = {
    "T": "int", "numerator": "ints", "shift": "int", "fraction": "int", "reset": "string",
    "current": "ints", "current_shift": "int",
}  # fmt: skip

_STATEFUL_FIRE_COUNT = Op(
    "StatefulFireCount",
    "quantised",
    "Spikes per timestep of a neuron with memory, V [T*N, C, ...]: H = floor(numerator * carried / "
    "2^shift) + I reaches so many of levels [C|1, D], I = floor(current * I / 2^current_shift) + V "
    "* 2^fraction; soft reset takes threshold [C|1] per spike, delayed reset off the next H; with "
    "raised reset that H must reach a threshold more where what stays reaches level 1. numerator "
    "and current are one number, or one of each channel. Exact for these decays if fraction is "
    "(T - 1) times the larger shift.",
    _STATE_INPUTS,
    {"A": U8},
    _STATE_ATTRIBUTES,
    _NUMBERS + """
    start_column = Constant <value_ints: ints = [0]> ()
    level_shape = Concat <axis: int = 0> (any, tail, D)
    L = Reshape (levels, level_shape)
    lowest = Slice (levels, start_column, one, one)
    level_1 = Reshape (lowest, by_channel)
    rest, left, last, S = Loop <body: graph = step (int64 i, bool on, int64[] v, int64[] owed,
                                int64[] flow) => (bool still_on, int64[] carried, int64[] due,
                                int64[] flows, int64[] count) {
      still_on = Identity (on)
    """ + _CHARGE + """
      h_1 = Unsqueeze (h, any)
      reached = GreaterOrEqual (h_1, L)
      ones = Cast <to: int = 7> (reached)
      count = ReduceSum <keepdims: int = 0, noop_with_empty_axes: int = 0> (ones, any)
    """ + _CARRY + """
    }> (t, go, start, start, start)
    counts = Cast <to: int = 2> (S)
    A = Reshape (counts, size)
    """,
    Traits(
        Numbers.POTENTIALS, Numbers.COUNTS, becomes="StatefulIF", remembers=True, keeps_shape=True
    ),
)  # fmt: skip

_STATEFUL_IF = Op(
    "StatefulIF",
    "spiking",
    "StatefulFireCount tick by tick: spikes [D, T*N, C, ...]. In each timestep the membrane starts "
    "at H - level 1, fires when it is not negative, and is lowered by the gap to the next level; "
    "what stays over timesteps is H less the threshold per spike, or 0, or H if that is delayed.",
    _STATE_INPUTS,
    {"S": U8},
    _STATE_ATTRIBUTES,
    _NUMBERS + """
    zero = Constant <value_ints: ints = [0]> ()
    """ + GAPS + """
    level_1 = Gather <axis: int = 0> (L, first)
    rest, unpaid, last_flow, trains = Loop <body: graph = step (int64 i, bool on, int64[] v,
                                            int64[] owed, int64[] flow) => (bool still_on,
                                            int64[] carried, int64[] due, int64[] flows,
                                            uint8[] train) {
      still_on = Identity (on)
    """ + _CHARGE + """
      above = Sub (h, level_1)
      left, train = Loop <body: graph = tick (int64 d, bool go_on, int64[] m) =>
                          (bool still_going, int64[] lowered, uint8[] spikes) {
        still_going = Identity (go_on)
        fires = GreaterOrEqual (m, first)
        spikes = Cast <to: int = 2> (fires)
        fired = Cast <to: int = 7> (fires)
        gap = Gather <axis: int = 0> (gaps, d)
        loss = Mul (fired, gap)
        lowered = Sub (m, loss)
      }> (ticks, on, above)
      wide_train = Cast <to: int = 7> (train)
      count = ReduceSum <keepdims: int = 0, noop_with_empty_axes: int = 0> (wide_train, zero)
    """ + _CARRY + """
    }> (t, go, start, start, start)
    flat_shape = Concat <axis: int = 0> (t_1, D, any)
    flat = Reshape (trains, flat_shape)
    ticks_first = Transpose <perm: ints = [1, 0, 2]> (flat)
    full = Concat <axis: int = 0> (D, size)
    S = Reshape (ticks_first, full)
    """,
    Traits(Numbers.POTENTIALS, Numbers.TICKS, remembers=True),
)  # fmt: skip

_REPEAT = Op(
    "Repeat",
    "imported",
    "The same input in all of T timesteps: [N, ...] -> [T*N, ...].",
    {"X": (*F32, *U8)},
    {"Y": (*F32, *U8)},
    {"T": "int"},
    """
    any = Constant <value_ints: ints = [-1]> ()
    one = Constant <value_ints: ints = [1]> ()
    t = Constant <value_int: int = @T> ()
    t_1 = Reshape (t, any)
    size = Shape (X)
    rank = Shape (size)
    less = Sub (rank, one)
    ones = ConstantOfShape <value: tensor = int64[1] {1}> (less)
    times = Concat <axis: int = 0> (t_1, ones)
    Y = Tile (X, times)
    """,
    Traits(keeps=(Numbers.COUNTS,), begins_time=True, keeps_shape=True),
)

_TIME_FIRST = Op(
    "TimeFirst",
    "imported",
    "The timesteps of a sequence one after the other: [N, T, ...] -> [T*N, ...].",
    {"X": (*F32, *U8)},
    {"Y": (*F32, *U8)},
    {"T": "int"},
    """
    any = Constant <value_ints: ints = [-1]> ()
    zero = Constant <value_ints: ints = [0]> ()
    one = Constant <value_ints: ints = [1]> ()
    two = Constant <value_ints: ints = [2]> ()
    end = Constant <value_ints: ints = [9223372036854775807]> ()
    size = Shape (X)
    sample = Slice (size, two, end)
    samples = Slice (size, zero, one)
    t = Constant <value_int: int = @T> ()
    t_1 = Reshape (t, any)
    spread = Concat <axis: int = 0> (samples, t_1, any)
    x = Reshape (X, spread)
    turned = Transpose <perm: ints = [1, 0, 2]> (x)
    flat = Concat <axis: int = 0> (any, sample)
    Y = Reshape (turned, flat)
    """,
    Traits(keeps=(Numbers.COUNTS,), begins_time=True),
)

_TIME_SUM = Op(
    "TimeSum",
    "imported",
    "Sum over T timesteps: [T*N, ...] -> [N, ...].",
    {"X": (*F32, *I32, *I64)},
    {"Y": (*F32, *I32, *I64)},
    {"T": "int"},
    """
    any = Constant <value_ints: ints = [-1]> ()
    one = Constant <value_ints: ints = [1]> ()
    zero = Constant <value_ints: ints = [0]> ()
    end = Constant <value_ints: ints = [9223372036854775807]> ()
    t = Constant <value_int: int = @T> ()
    t_1 = Reshape (t, any)
    size = Shape (X)
    sample = Slice (size, one, end)
    apart = Concat <axis: int = 0> (t_1, any, sample)
    x = Reshape (X, apart)
    Y = ReduceSum <keepdims: int = 0, noop_with_empty_axes: int = 0> (x, zero)
    """,
    Traits(keeps=(Numbers.COUNTS, Numbers.POTENTIALS), sums="T", ends_time=True, keeps_shape=True),
)

STATE_OPS = (
    _STATEFUL_FIRE,
    _REPEAT,
    _TIME_FIRST,
    _TIME_SUM,
    _STATEFUL_FIRE_COUNT,
    _STATEFUL_IF,
)
