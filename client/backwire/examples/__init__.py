"""Small complete examples, each a few seconds: `python -m backwire.examples.mlp`, and an address to run on it.

| module | what it shows |
|---|---|
| `mlp` | dense layers that classify points of two spirals |
| `cnn` | convolution, pooling and batch normalization on drawn images |
| `language_model` | a transformer that learns the Zen of Python and goes on from its beginning |
| `lstm` | a recurrent network that remembers |
| `autoencoder` | images through three numbers, by convolution and its transpose |
| `gan` | a generator and a discriminator, in two sessions |
| `policy_gradient` | a pole that stays up: actions sampled, rewarded, reinforced |
| `online` | a stream in which each event is predicted first and learned from then |
| `federated` | clients whose data never meet, and the average of what they learned |
| `data_parallel` | workers that each do a part of the batch of one session |
| `split_learning` | a model in two halves: one has the data, the other the labels |
| `hessian` | Newton's method by Hessian-vector products and conjugate gradients |
| `gradient_penalty` | a critic with a slope of one, by gradients of gradients |
"""
