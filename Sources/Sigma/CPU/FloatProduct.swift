#if os(Linux)
    import COpenBLAS

    /// One thread inside OpenBLAS, always: our team's members call it, each on tiles of its own.
    let blasIsReady: Void = openblas_set_num_threads(1)
#endif

/// c [m, n] (rows `cStride` apart) = a [m, k] b [n, k] transposed; fp32, on the calling thread.
func floatProduct(
    _ a: UnsafePointer<Float>, rows m: Int, stride aStride: Int, _ b: UnsafePointer<Float>, outputs n: Int,
    inputs k: Int,
    _ c: UnsafeMutablePointer<Float>, stride cStride: Int
) {
    #if os(Linux)
        _ = blasIsReady
        cblas_sgemm(
            CblasRowMajor, CblasNoTrans, CblasTrans, Int32(m), Int32(n), Int32(k), 1, a, Int32(aStride), b, Int32(k), 0,
            c,
            Int32(cStride))
    #else
        accelerateProduct(a, rows: m, stride: aStride, b, outputs: n, inputs: k, c, stride: cStride)
    #endif
}
