package main

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"

	pb "backwire.example/go/backwirev1"
)

const chunkBytes = 2 << 20 // what the contract asks senders to keep to

// Tensors are arrays by the name of an input, an output or a parameter.
type Tensors map[string]*pb.Tensor

// Float32 makes a tensor of elements in C order.
func Float32(elements []float32, shape ...int64) *pb.Tensor {
	data := make([]byte, 4*len(elements))
	for index, element := range elements {
		binary.LittleEndian.PutUint32(data[4*index:], math.Float32bits(element))
	}
	return &pb.Tensor{Dtype: pb.DataType_DATA_TYPE_FLOAT32, Shape: shape, Data: data}
}

// Int64 makes a vector, as labels are.
func Int64(elements []int64) *pb.Tensor {
	data := make([]byte, 8*len(elements))
	for index, element := range elements {
		binary.LittleEndian.PutUint64(data[8*index:], uint64(element))
	}
	return &pb.Tensor{Dtype: pb.DataType_DATA_TYPE_INT64, Shape: []int64{int64(len(elements))}, Data: data}
}

// ElementsOf returns the elements of a float32 tensor.
func ElementsOf(tensor *pb.Tensor) ([]float32, error) {
	if tensor.GetDtype() != pb.DataType_DATA_TYPE_FLOAT32 {
		return nil, fmt.Errorf("the tensor is %v; read it as that", tensor.GetDtype())
	}
	elements := make([]float32, len(tensor.Data)/4)
	for index := range elements {
		elements[index] = math.Float32frombits(binary.LittleEndian.Uint32(tensor.Data[4*index:]))
	}
	return elements, nil
}

// ChunksOf cuts a tensor into chunks, at least one, the last with the checksum of the whole.
func ChunksOf(name string, tensor *pb.Tensor) []*pb.TensorChunk {
	var chunks []*pb.TensorChunk
	for offset := 0; offset == 0 || offset < len(tensor.Data); offset += chunkBytes {
		end := offset + chunkBytes
		if end > len(tensor.Data) {
			end = len(tensor.Data)
		}
		chunks = append(chunks, &pb.TensorChunk{
			Name:   name,
			Dtype:  tensor.Dtype,
			Shape:  tensor.Shape,
			Offset: int64(offset),
			Data:   tensor.Data[offset:end],
		})
	}
	checksum := crc32.ChecksumIEEE(tensor.Data)
	chunks[len(chunks)-1].Crc32 = &checksum
	return chunks
}

// Assembler puts chunks together, and checks that nothing is missing or damaged.
type Assembler struct {
	tensors Tensors
	data    []byte
}

// Add takes the next chunk.
func (a *Assembler) Add(chunk *pb.TensorChunk) error {
	if chunk.Offset != int64(len(a.data)) {
		return fmt.Errorf("%s: byte %d came where %d was due; ask again", chunk.Name, chunk.Offset, len(a.data))
	}
	a.data = append(a.data, chunk.Data...)
	if chunk.Crc32 == nil {
		return nil
	}
	if crc32.ChecksumIEEE(a.data) != *chunk.Crc32 {
		return fmt.Errorf("%s: the checksum is wrong; ask again", chunk.Name)
	}
	if a.tensors == nil {
		a.tensors = Tensors{}
	}
	a.tensors[chunk.Name] = &pb.Tensor{Dtype: chunk.Dtype, Shape: chunk.Shape, Data: a.data}
	a.data = nil
	return nil
}

// Finish returns the tensors by name, once the stream has ended.
func (a *Assembler) Finish() (Tensors, error) {
	if len(a.data) > 0 {
		return nil, fmt.Errorf("the stream ended at byte %d of a tensor; ask again", len(a.data))
	}
	return a.tensors, nil
}
