import CSigma

/// Element type of the key-value cache.
public enum KVType: String, Sendable, CaseIterable {
    /// 16 bit: the default.
    case f16
    /// 8 bit with a scale per 32 values; needs a head_dim that is a multiple of 32.
    case q8_0
    /// 32 bit: for checking numbers.
    case f32

    /// - Throws: `SigmaError(.unavailable)` if a model with this head_dim cannot have such a cache.
    package func check(headDim: Int) throws {
        guard self == .q8_0, headDim % 32 != 0 else { return }
        throw SigmaError(
            .unavailable,
            "an 8-bit key-value cache needs a head_dim that is a multiple of 32, and this model's is \(headDim)",
            remedy: .set(.kvType, to: "f16"))
    }

    /// The kernels' number for the type: GGUF's.
    package var kernelType: Int32 {
        switch self {
        case .f32: Int32(SIGMA_F32)
        case .f16: Int32(SIGMA_F16)
        case .q8_0: Int32(SIGMA_Q8_0)
        }
    }
}
