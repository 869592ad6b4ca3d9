package pipelines

import (
	"cmp"
	"fmt"
	"math"
	"strconv"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// The operators are declared here rather than taken from CEL's standard library, whose arithmetic knows no quantities
// and no mix of integers and doubles. A mix gives a double; an integer divided by an integer stays one.

// signature is one overload of an operator.
type signature struct {
	left, right, result *cel.Type
}

func numeric(result func(a, b *cel.Type) *cel.Type) []signature {
	var all []signature
	for _, a := range []*cel.Type{cel.IntType, cel.DoubleType} {
		for _, b := range []*cel.Type{cel.IntType, cel.DoubleType} {
			all = append(all, signature{a, b, result(a, b)})
		}
	}
	return all
}

func wider(a, b *cel.Type) *cel.Type {
	if a == cel.IntType && b == cel.IntType {
		return cel.IntType
	}
	return cel.DoubleType
}

func always(t *cel.Type) func(a, b *cel.Type) *cel.Type {
	return func(_, _ *cel.Type) *cel.Type { return t }
}

// perQuantity gives the overloads that every quantity has.
func perQuantity(of func(q *cel.Type) []signature) []signature {
	var all []signature
	for _, k := range quantityKinds {
		all = append(all, of(quantityTypes[k])...)
	}
	return all
}

func sameQuantity(q *cel.Type) []signature { return []signature{{q, q, q}} }

func operatorOptions() []cel.EnvOption {
	listA := cel.ListType(cel.TypeParamType("A"))
	ordered := append(numeric(always(cel.BoolType)), signature{cel.StringType, cel.StringType, cel.BoolType})
	ordered = append(ordered, perQuantity(func(q *cel.Type) []signature { return []signature{{q, q, cel.BoolType}} })...)
	equal := append(ordered[:len(ordered):len(ordered)], signature{cel.BoolType, cel.BoolType, cel.BoolType},
		signature{listA, listA, cel.BoolType})
	add := append(numeric(wider), signature{cel.StringType, cel.StringType, cel.StringType}, signature{listA, listA, listA})
	scaled := perQuantity(func(q *cel.Type) []signature {
		return []signature{{q, cel.IntType, q}, {q, cel.DoubleType, q}, {cel.IntType, q, q}, {cel.DoubleType, q, q}}
	})
	divided := perQuantity(func(q *cel.Type) []signature {
		return []signature{{q, cel.IntType, q}, {q, cel.DoubleType, q}, {q, q, cel.DoubleType}}
	})
	return []cel.EnvOption{
		operatorOf(operators.Add, append(add, perQuantity(sameQuantity)...), addValues),
		operatorOf(operators.Subtract, append(numeric(wider), perQuantity(sameQuantity)...), subtractValues),
		operatorOf(operators.Multiply, append(numeric(wider), scaled...), multiplyValues),
		operatorOf(operators.Divide, append(numeric(wider), divided...), divideValues),
		operatorOf(operators.Modulo, []signature{{cel.IntType, cel.IntType, cel.IntType}}, func(a, b ref.Val) ref.Val {
			return a.(traits.Modder).Modulo(b)
		}),
		operatorOf(operators.Less, ordered, ordering(func(c int) bool { return c < 0 })),
		operatorOf(operators.LessEquals, ordered, ordering(func(c int) bool { return c <= 0 })),
		operatorOf(operators.Greater, ordered, ordering(func(c int) bool { return c > 0 })),
		operatorOf(operators.GreaterEquals, ordered, ordering(func(c int) bool { return c >= 0 })),
		operatorOf(operators.Equals, equal, func(a, b ref.Val) ref.Val { return types.Equal(a, b) }),
		operatorOf(operators.NotEquals, equal, func(a, b ref.Val) ref.Val { return types.Bool(types.Equal(a, b) != types.True) }),
		cel.Function(operators.Negate,
			cel.Overload(overloads.NegateInt64, []*cel.Type{cel.IntType}, cel.IntType),
			cel.Overload(overloads.NegateDouble, []*cel.Type{cel.DoubleType}, cel.DoubleType),
			cel.SingletonUnaryBinding(func(v ref.Val) ref.Val { return v.(traits.Negater).Negate() })),
	}
}

// operatorOf declares an operator. The overloads of texts and lists carry CEL's own names, by which it knows what they cost.
func operatorOf(operator string, signatures []signature, do func(a, b ref.Val) ref.Val) cel.EnvOption {
	var options []cel.FunctionOpt
	for _, s := range signatures {
		id := fmt.Sprintf("%s:%s,%s", operator, s.left, s.right)
		if operator == operators.Add && s.left == cel.StringType {
			id = overloads.AddString
		} else if operator == operators.Add && s.left.Kind() == types.ListKind {
			id = overloads.AddList
		}
		options = append(options, cel.Overload(id, []*cel.Type{s.left, s.right}, s.result))
	}
	return cel.Function(operator, append(options, cel.SingletonBinaryBinding(do))...)
}

// level makes doubles of two numbers when one of them is a double.
func level(a, b ref.Val) (ref.Val, ref.Val) {
	if i, ok := a.(types.Int); ok {
		if _, mixed := b.(types.Double); mixed {
			return types.Double(i), b
		}
	}
	if i, ok := b.(types.Int); ok {
		if _, mixed := a.(types.Double); mixed {
			return a, types.Double(i)
		}
	}
	return a, b
}

func addValues(a, b ref.Val) ref.Val {
	if q, ok := a.(quantity); ok {
		return q.plus(b.(quantity), 1)
	}
	a, b = level(a, b)
	return a.(traits.Adder).Add(b)
}

func subtractValues(a, b ref.Val) ref.Val {
	if q, ok := a.(quantity); ok {
		return q.plus(b.(quantity), -1)
	}
	a, b = level(a, b)
	return a.(traits.Subtractor).Subtract(b)
}

func multiplyValues(a, b ref.Val) ref.Val {
	if q, ok := a.(quantity); ok {
		return q.scale(b)
	}
	if q, ok := b.(quantity); ok {
		return q.scale(a)
	}
	a, b = level(a, b)
	return a.(traits.Multiplier).Multiply(b)
}

func divideValues(a, b ref.Val) ref.Val {
	if q, ok := a.(quantity); ok {
		return q.divide(b)
	}
	a, b = level(a, b)
	if d, ok := b.(types.Double); ok && d == 0 {
		return types.NewErr("division by zero")
	}
	return a.(traits.Divider).Divide(b)
}

func ordering(holds func(c int) bool) func(a, b ref.Val) ref.Val {
	return func(a, b ref.Val) ref.Val {
		if q, ok := a.(quantity); ok {
			return types.Bool(holds(q.compare(b.(quantity))))
		}
		if s, ok := a.(types.String); ok {
			return types.Bool(holds(cmp.Compare(s, b.(types.String))))
		}
		c := a.(traits.Comparer).Compare(b)
		i, ok := c.(types.Int)
		if !ok {
			return c // not a number
		}
		return types.Bool(holds(int(i)))
	}
}

// conversionOptions declares the functions that turn one type into another.
func conversionOptions() []cel.EnvOption {
	var fromString []cel.EnvOption
	for name, k := range map[string]kind{"duration": kindDuration, "bytes": kindSize, "bandwidth": kindBandwidth, "share": kindShare} {
		fromString = append(fromString, conversion(name, quantityTypes[k], func(v ref.Val) ref.Val {
			native, err := k.parseText(string(v.(types.String)))
			if err != nil {
				return types.NewErr("%v", err)
			}
			return toCEL(native)
		}, cel.StringType))
	}
	any := []*cel.Type{cel.BoolType, cel.IntType, cel.DoubleType, cel.StringType}
	for _, k := range quantityKinds {
		any = append(any, quantityTypes[k])
	}
	numbers := append([]*cel.Type{cel.IntType, cel.DoubleType, cel.StringType}, any[4:]...)
	return append(fromString,
		conversion("string", cel.StringType, func(v ref.Val) ref.Val { return types.String(textOf(plain(fromCEL(v)))) }, any...),
		conversion("double", cel.DoubleType, toDouble, numbers...),
		conversion("int", cel.IntType, toInt, cel.IntType, cel.DoubleType, cel.StringType,
			quantityTypes[kindSize], quantityTypes[kindBandwidth]),
	)
}

func conversion(name string, result *cel.Type, do func(ref.Val) ref.Val, from ...*cel.Type) cel.EnvOption {
	var options []cel.FunctionOpt
	for _, t := range from {
		options = append(options, cel.Overload(fmt.Sprintf("%s:%s", name, t), []*cel.Type{t}, result))
	}
	return cel.Function(name, append(options, cel.SingletonUnaryBinding(do))...)
}

func toDouble(v ref.Val) ref.Val {
	switch v := v.(type) {
	case quantity:
		return types.Double(v.number())
	case types.Int:
		return types.Double(v)
	case types.String:
		f, err := strconv.ParseFloat(string(v), 64)
		if err != nil {
			return types.NewErr("`%s` is not a number", clip(string(v)))
		}
		return types.Double(f)
	}
	return v
}

func toInt(v ref.Val) ref.Val {
	switch v := v.(type) {
	case quantity:
		return types.Int(v.n)
	case types.Double:
		if math.IsNaN(float64(v)) || math.Abs(float64(v)) >= 1<<63 {
			return types.NewErr("%v does not fit into an integer", float64(v))
		}
		return types.Int(v)
	case types.String:
		n, err := strconv.ParseInt(string(v), 10, 64)
		if err != nil {
			return types.NewErr("`%s` is not an integer", clip(string(v)))
		}
		return types.Int(n)
	}
	return v
}

// fromCEL is the inverse of toCEL; nil for what the language has no value of.
func fromCEL(v ref.Val) any {
	switch v := v.(type) {
	case types.Bool:
		return bool(v)
	case types.Int:
		return int64(v)
	case types.Double:
		return float64(v)
	case types.String:
		return string(v)
	case quantity:
		return v.native()
	}
	return nil
}
