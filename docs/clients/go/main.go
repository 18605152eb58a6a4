// Trains a network that tells irises apart, and shows how calls fail, and how large tensors travel.
package main

//go:generate ./generate.sh

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	pb "backwire.example/go/backwirev1"
)

const (
	hidden = 16
	batch  = 20
	epochs = 60
	side   = 2048 // of the large tensor, 16 MiB
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	target, file := os.Getenv("BACKWIRE_TARGET"), "../iris.csv"
	if target == "" {
		target = "localhost:50051"
	}
	if len(os.Args) > 1 {
		file = os.Args[1]
	}
	client, err := Connect(target, os.Getenv("BACKWIRE_TOKEN"))
	if err != nil {
		return err
	}
	defer client.Close()
	flowers, err := Read(file)
	if err != nil {
		return err
	}
	if err := train(client, flowers); err != nil {
		return err
	}
	if err := sendLarge(client); err != nil {
		return err
	}
	fmt.Printf("repeated: %d calls\n", client.Repeated)
	return nil
}

// network is two dense layers with Relu between, and the cross-entropy of what they tell.
func network() *pb.Graph {
	float, whole := pb.DataType_DATA_TYPE_FLOAT32, pb.DataType_DATA_TYPE_INT64
	rows := &pb.Dimension{Kind: &pb.Dimension_Symbol{Symbol: "batch"}}
	columns := &pb.Dimension{Kind: &pb.Dimension_Size{Size: features}}
	return &pb.Graph{
		Inputs: []*pb.Input{
			{Name: "x", Dtype: float, Shape: []*pb.Dimension{rows, columns}},
			{Name: "labels", Dtype: whole, Shape: []*pb.Dimension{rows}},
		},
		Parameters: append(layer("hidden", features, hidden), layer("top", hidden, classes)...),
		Nodes: []*pb.Node{
			{Op: "Gemm", Inputs: []string{"x", "hidden.weight", "hidden.bias"}, Outputs: []string{"hidden"}},
			{Op: "Relu", Inputs: []string{"hidden"}, Outputs: []string{"active"}},
			{Op: "Gemm", Inputs: []string{"active", "top.weight", "top.bias"}, Outputs: []string{"logits"}},
			{Op: "SoftmaxCrossEntropyLoss", Inputs: []string{"logits", "labels"}, Outputs: []string{"loss"}},
		},
		Outputs: map[string]string{"logits": "logits"},
		Loss:    "loss",
	}
}

func layer(name string, inputs, units int64) []*pb.Parameter {
	weight := drawn(name+".weight", pb.Initializer_DISTRIBUTION_GLOROT_UNIFORM, inputs, units)
	return []*pb.Parameter{weight, drawn(name+".bias", pb.Initializer_DISTRIBUTION_CONSTANT, units)}
}

// drawn is a parameter that the server draws, whose last axis counts units; a constant one is 0.
func drawn(name string, distribution pb.Initializer_Distribution, shape ...int64) *pb.Parameter {
	rule := &pb.Initializer{
		Dtype:        pb.DataType_DATA_TYPE_FLOAT32,
		Shape:        shape,
		Distribution: distribution,
		UnitAxis:     int64(len(shape) - 1),
	}
	return &pb.Parameter{Name: name, Source: &pb.Parameter_Initializer{Initializer: rule}}
}

func train(client *Client, flowers Flowers) (err error) {
	rate := 0.02
	adam := &pb.Optimizer{LearningRate: &rate, Algorithm: &pb.Optimizer_Adam{Adam: &pb.Adam{}}}
	session, err := client.CreateSession(network(), adam, 0)
	if err != nil {
		return err
	}
	defer deleted(client, session, &err)
	var loss float64
	for epoch := 0; epoch < epochs; epoch++ {
		for _, inputs := range flowers.Batches(batch, epoch) {
			done, err := client.TrainStep(session, inputs)
			if err != nil {
				return err
			}
			loss = done.Loss
		}
	}
	found, err := client.GetSession(session)
	if err != nil {
		return err
	}
	fmt.Printf("step %d, loss %.4f\n", found.Step, loss)
	if err := judge(client, session, flowers.Test); err != nil {
		return err
	}
	return fail(client, session)
}

// judge tells the share of right answers among flowers that were held out.
func judge(client *Client, session string, held []Flower) error {
	found, err := client.Evaluate(session, TensorsOf(held), client.Timeout)
	if err != nil {
		return err
	}
	logits, err := ElementsOf(found.Outputs["logits"])
	if err != nil {
		return err
	}
	right := 0
	for row, flower := range held {
		if largest(logits[classes*row:classes*(row+1)]) == flower.Species {
			right++
		}
	}
	share := float64(right) / float64(len(held))
	fmt.Printf("accuracy %.3f on %d flowers never trained on\n", share, len(held))
	return nil
}

func largest(scores []float32) int64 {
	best := 0
	for index, score := range scores {
		if score > scores[best] {
			best = index
		}
	}
	return int64(best)
}

// fail makes two calls that fail, and tells what their errors say.
func fail(client *Client, session string) error {
	narrow := Tensors{"x": Float32(make([]float32, 3), 1, 3), "labels": Int64([]int64{0})}
	_, wrong := client.Evaluate(session, narrow, client.Timeout)
	_, late := client.Evaluate(session, Tensors{}, 0)
	for _, err := range []error{wrong, late} {
		var failure *Error
		if !errors.As(err, &failure) {
			return fmt.Errorf("a call that must fail gave %v", err)
		}
		fmt.Printf("refused: %s\n", failure.Name())
	}
	return nil
}

// sendLarge sends a tensor that is larger than a message, has the server add it up, and reads it back.
func sendLarge(client *Client) (err error) {
	table := drawn("table", pb.Initializer_DISTRIBUTION_CONSTANT, side, side)
	table.Frozen = true
	keep := map[string]*pb.Attribute{"keepdims": {Kind: &pb.Attribute_Integer{Integer: 0}}}
	sum := &pb.Node{Op: "ReduceSum", Inputs: []string{"table"}, Outputs: []string{"sum"}, Attributes: keep}
	graph := &pb.Graph{
		Parameters: []*pb.Parameter{table},
		Nodes:      []*pb.Node{sum},
		Outputs:    map[string]string{"sum": "sum"},
	}
	session, err := client.CreateSession(graph, nil, 0)
	if err != nil {
		return err
	}
	defer deleted(client, session, &err)
	elements := make([]float32, side*side)
	for index := range elements {
		elements[index] = float32(index % 2)
	}
	sent := Float32(elements, side, side)
	if err := client.SetParameters(session, Tensors{"table": sent}); err != nil {
		return err
	}
	found, err := client.Evaluate(session, Tensors{}, client.Timeout)
	if err != nil {
		return err
	}
	total, err := ElementsOf(found.Outputs["sum"])
	if err != nil {
		return err
	}
	back, err := client.GetParameters(session, "table")
	if err != nil {
		return err
	}
	data, same := back["table"].GetData(), "other"
	if bytes.Equal(data, sent.Data) {
		same = "the same"
	}
	fmt.Printf("large: %d bytes came back, %s; their sum is %.0f\n", len(data), same, total[0])
	return nil
}

// deleted deletes a session when all is done, and tells if that fails, unless something did before.
func deleted(client *Client, session string, err *error) {
	if failure := client.DeleteSession(session); *err == nil {
		*err = failure
	}
}
