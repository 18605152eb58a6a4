package main

import (
	"encoding/csv"
	"fmt"
	"math"
	"os"
	"strconv"
)

const (
	features = 4
	classes  = 3
)

// Flower is a row of the data.
type Flower struct {
	Features [features]float64
	Species  int64
}

// Flowers are those to train on, and every fifth, held out.
type Flowers struct{ Train, Test []Flower }

// Read reads the flowers of a file. All features get mean 0 and variance 1.
func Read(path string) (Flowers, error) {
	var flowers Flowers
	file, err := os.Open(path)
	if err != nil {
		return flowers, err
	}
	defer file.Close()
	rows, err := csv.NewReader(file).ReadAll()
	if err != nil {
		return flowers, err
	}
	all := make([]Flower, len(rows)-1)
	for index, row := range rows[1:] {
		if all[index], err = flowerOf(row); err != nil {
			return flowers, fmt.Errorf("%s: row %d: %w", path, index+2, err)
		}
	}
	standardize(all)
	for index, flower := range all {
		if index%5 == 0 {
			flowers.Test = append(flowers.Test, flower)
		} else {
			flowers.Train = append(flowers.Train, flower)
		}
	}
	return flowers, nil
}

func flowerOf(row []string) (Flower, error) {
	var flower Flower
	var err error
	for index := range flower.Features {
		if flower.Features[index], err = strconv.ParseFloat(row[index], 64); err != nil {
			return flower, err
		}
	}
	flower.Species, err = strconv.ParseInt(row[features], 10, 64)
	return flower, err
}

func standardize(flowers []Flower) {
	count := float64(len(flowers))
	for index := 0; index < features; index++ {
		var sum, squares float64
		for _, flower := range flowers {
			sum += flower.Features[index]
			squares += flower.Features[index] * flower.Features[index]
		}
		mean := sum / count
		deviation := math.Sqrt(squares/count - mean*mean)
		for row := range flowers {
			flowers[row].Features[index] = (flowers[row].Features[index] - mean) / deviation
		}
	}
}

// Batches are inputs of so many flowers, with every species in each, since the flowers are sorted by it: each batch
// takes every n-th.
func (f Flowers) Batches(size, epoch int) []Tensors {
	count := (len(f.Train) + size - 1) / size
	chosen := make([][]Flower, count)
	for index, flower := range f.Train {
		number := (index + epoch) % count
		chosen[number] = append(chosen[number], flower)
	}
	batches := make([]Tensors, count)
	for number, flowers := range chosen {
		batches[number] = TensorsOf(flowers)
	}
	return batches
}

// TensorsOf makes the inputs of the network.
func TensorsOf(flowers []Flower) Tensors {
	x := make([]float32, 0, features*len(flowers))
	labels := make([]int64, 0, len(flowers))
	for _, flower := range flowers {
		for _, feature := range flower.Features {
			x = append(x, float32(feature))
		}
		labels = append(labels, flower.Species)
	}
	return Tensors{"x": Float32(x, int64(len(flowers)), features), "labels": Int64(labels)}
}
