#if os(macOS)
    import Accelerate

    func accelerateProduct(
        _ a: UnsafePointer<Float>, rows m: Int, stride aStride: Int, _ b: UnsafePointer<Float>, outputs n: Int,
        inputs k: Int, _ c: UnsafeMutablePointer<Float>, stride cStride: Int
    ) {
        cblas_sgemm(
            CblasRowMajor, CblasNoTrans, CblasTrans, Int32(m), Int32(n), Int32(k), 1, a, Int32(aStride), b, Int32(k), 0,
            c,
            Int32(cStride))
    }
#endif
