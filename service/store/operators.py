"""The operators that an exported program may call: functions of numbers, and nothing else.

Not here, whatever a program says: what reads or writes files, what sees memory that is not a tensor's own
(strides, storages, uninitialised memory), what draws random numbers, what calls Python, what keeps state,
what waits for or talks to a device, what looks at sizes less closely than the operator that people call (the
batch norms and Fourier transforms behind those), and every operator that is not torch's own.
"""

from __future__ import annotations

_ATEN = """
abs.default add.Tensor add.Scalar addcmul.default addcdiv.default addmm.default amax.default amin.default
baddbmm.default bmm.default clamp.default clamp.Tensor clamp_max.default clamp_max.Tensor clamp_min.default
clamp_min.Tensor cos.default div.Scalar div.Scalar_mode div.Tensor div.Tensor_mode dot.default
einsum.default erf.default exp.default exp2.default expm1.default floor.default floor_divide.default
fmod.Scalar linear.default log.default log1p.default log2.default logsumexp.default matmul.default
maximum.default max.default max.dim max.other mean.default mean.dim minimum.default min.default min.dim
min.other mm.default mul.Scalar mul.Tensor mv.default neg.default norm.ScalarOpt_dim
linalg_vector_norm.default pow.Scalar pow.Tensor_Scalar pow.Tensor_Tensor prod.default prod.dim_int
reciprocal.default remainder.Scalar remainder.Tensor round.default rsqrt.default rsub.Scalar rsub.Tensor
sign.default sin.default sqrt.default square.default std.correction std.dim sub.Scalar sub.Tensor
sum.default sum.dim_IntList tan.default trunc.default var.correction var.dim var_mean.correction
cumsum.default argmax.default argmin.default topk.default sort.default

celu.default elu.default gelu.default glu.default hardshrink.default hardsigmoid.default hardswish.default
hardtanh.default leaky_relu.default log_sigmoid.default log_softmax.int _log_softmax.default mish.default
prelu.default _prelu_kernel.default relu.default relu6.default selu.default sigmoid.default silu.default
softmax.int _softmax.default softplus.default softshrink.default tanh.default threshold.default

bitwise_and.Tensor bitwise_not.default bitwise_or.Tensor eq.Scalar eq.Tensor ge.Scalar ge.Tensor gt.Scalar
gt.Tensor isnan.default isinf.default le.Scalar le.Tensor logical_and.default logical_not.default
logical_or.default lt.Scalar lt.Tensor masked_fill.Scalar masked_fill.Tensor ne.Scalar ne.Tensor
nan_to_num.default where.self where.ScalarOther where.ScalarSelf

_native_batch_norm_legit_no_training.default batch_norm.default group_norm.default native_group_norm.default
instance_norm.default layer_norm.default native_layer_norm.default rms_norm.default

_adaptive_avg_pool2d.default _adaptive_avg_pool3d.default adaptive_avg_pool1d.default
adaptive_avg_pool2d.default adaptive_avg_pool3d.default adaptive_max_pool1d.default
adaptive_max_pool2d.default adaptive_max_pool3d.default avg_pool1d.default avg_pool2d.default
avg_pool3d.default bilinear.default conv1d.default conv1d.padding conv2d.default conv2d.padding
conv3d.default conv3d.padding conv_transpose1d.default conv_transpose2d.input conv_transpose3d.input
convolution.default max_pool1d.default max_pool2d.default max_pool2d_with_indices.default max_pool3d.default
max_pool3d_with_indices.default scaled_dot_product_attention.default fft_fft2.default fft_ifft2.default
fft_rfft2.default fft_irfft2.default grid_sampler.default grid_sampler_2d.default
affine_grid_generator.default cosine_similarity.default

_upsample_bicubic2d_aa.default _upsample_bicubic2d_aa.vec _upsample_bilinear2d_aa.default
_upsample_bilinear2d_aa.vec upsample_bicubic2d.default upsample_bicubic2d.vec upsample_bilinear2d.default
upsample_bilinear2d.vec upsample_linear1d.default upsample_linear1d.vec upsample_nearest1d.default
upsample_nearest1d.vec upsample_nearest2d.default upsample_nearest2d.vec upsample_nearest3d.default
upsample_nearest3d.vec _upsample_nearest_exact2d.default _upsample_nearest_exact2d.vec
upsample_trilinear3d.default upsample_trilinear3d.vec

_to_copy.default _unsafe_view.default alias.default broadcast_to.default cat.default channel_shuffle.default
chunk.default clone.default col2im.default concat.default constant_pad_nd.default contiguous.default
expand.default expand_as.default flatten.using_ints flip.default gather.default im2col.default index.Tensor
index_select.default lift_fresh_copy.default movedim.int movedim.intlist narrow.default numpy_T.default
pad.default permute.default pixel_shuffle.default pixel_unshuffle.default reflection_pad1d.default
reflection_pad2d.default repeat.default repeat_interleave.self_int replication_pad1d.default
replication_pad2d.default reshape.default reshape_as.default roll.default rot90.default select.int
slice.Tensor split.Tensor split.sizes split_with_sizes.default squeeze.default squeeze.dim squeeze.dims
stack.default t.default tensor_split.sections tile.default to.device to.dtype to.dtype_layout to.other
transpose.int tril.default triu.default type_as.default unbind.int unflatten.int unfold.default
unsqueeze.default view.default view_as.default view_as_complex.default view_as_real.default view.dtype
real.default imag.default

detach.default dropout.default feature_dropout.default alpha_dropout.default feature_alpha_dropout.default

arange.default arange.start arange.start_step eye.default full.default full_like.default linspace.default
meshgrid.default meshgrid.indexing new_full.default new_ones.default new_zeros.default ones.default
ones_like.default scalar_tensor.default zeros.default zeros_like.default

sym_size.int sym_numel.default _assert_scalar.default _assert_tensor_metadata.default
sym_constrain_range_for_size.default sym_constrain_range.default

add_.Scalar add_.Tensor addcmul_.default celu_.default clamp_.default clamp_max_.default clamp_min_.default
copy_.default detach_.default div_.Scalar div_.Tensor dropout_.default elu_.default exp_.default
fill_.Scalar floor_.default hardsigmoid_.default hardswish_.default hardtanh_.default leaky_relu_.default
masked_fill_.Scalar mish_.default mul_.Scalar mul_.Tensor neg_.default relu6_.default relu_.default
selu_.default sigmoid_.default silu_.default sqrt_.default sub_.Scalar sub_.Tensor tanh_.default
threshold_.default zero_.default
"""
_INTEGERS = "add sub mul floordiv mod neg eq ne lt le gt ge"  # of sizes

ATEN: frozenset[str] = frozenset(f"torch.ops.aten.{name}" for name in _ATEN.split())
"""Overloads of ATen operators, as programs spell them: `torch.ops.aten.conv2d.default`."""
INTEGER: frozenset[str] = frozenset(f"_operator.{name}" for name in _INTEGERS.split())
"""Functions of Python's `operator` module, for sizes: `_operator.mul`."""
