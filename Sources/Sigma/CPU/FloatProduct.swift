#if os(Linux)
    import COpenBLAS
    import SystemLibrary

    private typealias Product =
        @convention(c) (
            CBLAS_ORDER, CBLAS_TRANSPOSE, CBLAS_TRANSPOSE, blasint, blasint, blasint, Float, UnsafePointer<Float>?,
            blasint,
            UnsafePointer<Float>?, blasint, Float, UnsafeMutablePointer<Float>?, blasint
        ) -> Void

    /// OpenBLAS's sgemm, opened when the first float model asks for it; nil where the library is not installed.
    ///
    /// It must not start threads of its own: our team's members call it, each on tiles of its own. Its pool is made when the library is
    /// loaded (and its exit handler can wait for that pool for ever), so the number is set before, whatever the environment says.
    private let openBLASProduct: Product? = {
        guard
            let library = openLibrary(
                ["libopenblas.so.0", "libopenblas.so"], hiding: ["OPENBLAS_", "GOTO_", "OMP_"],
                setting: ["OPENBLAS_NUM_THREADS=1"]), let product = dlsym(library, "cblas_sgemm")
        else { return nil }
        if let limit = dlsym(library, "openblas_set_num_threads") {
            unsafeBitCast(limit, to: (@convention(c) (Int32) -> Void).self)(1)
        }
        return unsafeBitCast(product, to: Product.self)
    }()

    /// Whether there is a library for float products. Opens it.
    var hasFloatProduct: Bool { openBLASProduct != nil }
#else
    var hasFloatProduct: Bool { true }
#endif

/// c [m, n] (rows `cStride` apart) = a [m, k] b [n, k] transposed; fp32, on the calling thread. Only where `hasFloatProduct`.
func floatProduct(
    _ a: UnsafePointer<Float>, rows m: Int, stride aStride: Int, _ b: UnsafePointer<Float>, outputs n: Int,
    inputs k: Int,
    _ c: UnsafeMutablePointer<Float>, stride cStride: Int
) {
    #if os(Linux)
        openBLASProduct!(
            CblasRowMajor, CblasNoTrans, CblasTrans, blasint(m), blasint(n), blasint(k), 1, a, blasint(aStride), b,
            blasint(k), 0, c, blasint(cStride))
    #else
        accelerateProduct(a, rows: m, stride: aStride, b, outputs: n, inputs: k, c, stride: cStride)
    #endif
}
