//go:build !purego

#include "textflag.h"

// The kernels of kernels.go by AVX2, without fused operations, so that every number has the bits that the Go code gives it.
// Columns stand beside each other in a register; what is summed over rows is summed from the first to the last.

// func logitsAVX2(z, x, weights, center *float64, n, d int, masks *int64, first float64)
// Y0 and Y1 are the eight strands. Rows are taken one by one, since to read two at once keeps the CPU from reading ahead:
// wide rows then come at a third of the memory's speed.
TEXT ·logitsAVX2(SB), NOSPLIT, $0-64
	MOVQ z+0(FP), DI
	MOVQ x+8(FP), SI
	MOVQ weights+16(FP), R8
	MOVQ center+24(FP), R9
	MOVQ n+32(FP), CX
	MOVQ d+40(FP), DX
	MOVQ masks+48(FP), R10
	MOVSD first+56(FP), X13
	MOVQ DX, R11
	SHLQ $3, R11 // bytes of a row
	TESTQ CX, CX
	JZ   logitsDone

logitsRows:
	VXORPD Y0, Y0, Y0
	VXORPD Y1, Y1, Y1
	XORQ   AX, AX
	MOVQ   DX, R12
	SHRQ   $3, R12
	JZ     logitsTail

logitsEight:
	VMOVUPD (SI)(AX*1), Y8
	VMOVUPD 32(SI)(AX*1), Y9
	VSUBPD  (R9)(AX*1), Y8, Y8
	VSUBPD  32(R9)(AX*1), Y9, Y9
	VMULPD  (R8)(AX*1), Y8, Y8
	VMULPD  32(R8)(AX*1), Y9, Y9
	VADDPD  Y8, Y0, Y0
	VADDPD  Y9, Y1, Y1
	ADDQ    $64, AX
	DECQ    R12
	JNZ     logitsEight

logitsTail:
	// The columns that are left, of strands 0 to 3 and then 4 to 7. What a mask leaves out adds 0.
	MOVQ DX, R12
	ANDQ $7, R12
	JZ   logitsSum
	MOVQ R12, R13
	CMPQ R13, $4
	JLE  logitsLow
	MOVQ $4, R13

logitsLow:
	NEGQ       R13
	VMOVUPD    32(R10)(R13*8), Y12
	VMASKMOVPD (R8)(AX*1), Y12, Y4
	VMASKMOVPD (R9)(AX*1), Y12, Y6
	VMASKMOVPD (SI)(AX*1), Y12, Y8
	VSUBPD     Y6, Y8, Y8
	VMULPD     Y4, Y8, Y8
	VADDPD     Y8, Y0, Y0
	ADDQ       $32, AX
	SUBQ       $4, R12
	JLE        logitsSum
	NEGQ       R12
	VMOVUPD    32(R10)(R12*8), Y12
	VMASKMOVPD (R8)(AX*1), Y12, Y4
	VMASKMOVPD (R9)(AX*1), Y12, Y6
	VMASKMOVPD (SI)(AX*1), Y12, Y8
	VSUBPD     Y6, Y8, Y8
	VMULPD     Y4, Y8, Y8
	VADDPD     Y8, Y1, Y1

logitsSum:
	VADDPD       Y1, Y0, Y0
	VEXTRACTF128 $1, Y0, X1
	VADDPD       X1, X0, X0
	VUNPCKHPD    X0, X0, X1
	VADDSD       X1, X0, X0
	VADDSD       X0, X13, X0
	VMOVSD       X0, (DI)
	ADDQ         $8, DI
	ADDQ         R11, SI
	DECQ         CX
	JNZ          logitsRows

logitsDone:
	VZEROUPPER
	RET

// One step of the gradient: the columns in memory at, centered by c, times the residual in Y8, added to g.
#define GRADIENT(at, c, g, t) \
	VMOVUPD at, t \
	VSUBPD  c, t, t    \
	VMULPD  Y8, t, t   \
	VADDPD  t, g, g

// func gradientAVX2(gradient, x, center, residual *float64, n, d int, masks *int64)
TEXT ·gradientAVX2(SB), NOSPLIT, $0-56
	MOVQ  gradient+0(FP), DI
	MOVQ  x+8(FP), BX
	MOVQ  center+16(FP), R9
	MOVQ  n+32(FP), R13
	MOVQ  d+40(FP), DX
	MOVQ  masks+48(FP), R10
	MOVQ  DX, R11
	SHLQ  $3, R11 // bytes of a row
	TESTQ R13, R13
	JZ    gradientDone

gradientSixteen:
	CMPQ    DX, $16
	JLT     gradientFour
	VMOVUPD (DI), Y0
	VMOVUPD 32(DI), Y1
	VMOVUPD 64(DI), Y2
	VMOVUPD 96(DI), Y3
	VMOVUPD (R9), Y4
	VMOVUPD 32(R9), Y5
	VMOVUPD 64(R9), Y6
	VMOVUPD 96(R9), Y7
	MOVQ    BX, SI
	MOVQ    residual+24(FP), R8
	MOVQ    R13, CX

gradientSixteenRows:
	VBROADCASTSD (R8), Y8
	// The rows after these, which are next: what is waited for here is waited for while there is work.
	GRADIENT(0(SI), Y4, Y0, Y9)
	GRADIENT(32(SI), Y5, Y1, Y10)
	GRADIENT(64(SI), Y6, Y2, Y11)
	GRADIENT(96(SI), Y7, Y3, Y12)
	ADDQ         R11, SI
	ADDQ         $8, R8
	DECQ         CX
	JNZ          gradientSixteenRows
	VMOVUPD      Y0, (DI)
	VMOVUPD      Y1, 32(DI)
	VMOVUPD      Y2, 64(DI)
	VMOVUPD      Y3, 96(DI)
	ADDQ         $128, DI
	ADDQ         $128, R9
	ADDQ         $128, BX
	SUBQ         $16, DX
	JMP          gradientSixteen

gradientFour:
	TESTQ DX, DX
	JLE   gradientDone
	MOVQ  DX, AX
	CMPQ  AX, $4
	JLE   gradientMask
	MOVQ  $4, AX

gradientMask:
	NEGQ       AX
	VMOVUPD    32(R10)(AX*8), Y13
	VMASKMOVPD (DI), Y13, Y0
	VMASKMOVPD (R9), Y13, Y4
	MOVQ       BX, SI
	MOVQ       residual+24(FP), R8
	MOVQ       R13, CX

gradientFourRows:
	VBROADCASTSD (R8), Y8
	VMASKMOVPD   (SI), Y13, Y9
	VSUBPD       Y4, Y9, Y9
	VMULPD       Y8, Y9, Y9
	VADDPD       Y9, Y0, Y0
	ADDQ         R11, SI
	ADDQ         $8, R8
	DECQ         CX
	JNZ          gradientFourRows
	VMASKMOVPD   Y0, Y13, (DI)
	ADDQ         $32, DI
	ADDQ         $32, R9
	ADDQ         $32, BX
	SUBQ         $4, DX
	JMP          gradientFour

gradientDone:
	VZEROUPPER
	RET

// The same for the diagonal of the Hessian: (curve · u) · u.
#define SQUARE(at, c, h, t, u) \
	VMOVUPD at, t \
	VSUBPD  c, t, t    \
	VMULPD  Y8, t, u   \
	VMULPD  t, u, u    \
	VADDPD  u, h, h

// func squaresAVX2(h, x, center, curve *float64, n, d int, masks *int64)
TEXT ·squaresAVX2(SB), NOSPLIT, $0-56
	MOVQ  h+0(FP), DI
	MOVQ  x+8(FP), BX
	MOVQ  center+16(FP), R9
	MOVQ  n+32(FP), R13
	MOVQ  d+40(FP), DX
	MOVQ  masks+48(FP), R10
	MOVQ  DX, R11
	SHLQ  $3, R11
	TESTQ R13, R13
	JZ    squaresDone

squaresSixteen:
	CMPQ    DX, $16
	JLT     squaresFour
	VMOVUPD (DI), Y0
	VMOVUPD 32(DI), Y1
	VMOVUPD 64(DI), Y2
	VMOVUPD 96(DI), Y3
	VMOVUPD (R9), Y4
	VMOVUPD 32(R9), Y5
	VMOVUPD 64(R9), Y6
	VMOVUPD 96(R9), Y7
	MOVQ    BX, SI
	MOVQ    curve+24(FP), R8
	MOVQ    R13, CX

squaresSixteenRows:
	VBROADCASTSD (R8), Y8
	SQUARE(0(SI), Y4, Y0, Y9, Y10)
	SQUARE(32(SI), Y5, Y1, Y11, Y12)
	SQUARE(64(SI), Y6, Y2, Y9, Y10)
	SQUARE(96(SI), Y7, Y3, Y11, Y12)
	ADDQ         R11, SI
	ADDQ         $8, R8
	DECQ         CX
	JNZ          squaresSixteenRows
	VMOVUPD      Y0, (DI)
	VMOVUPD      Y1, 32(DI)
	VMOVUPD      Y2, 64(DI)
	VMOVUPD      Y3, 96(DI)
	ADDQ         $128, DI
	ADDQ         $128, R9
	ADDQ         $128, BX
	SUBQ         $16, DX
	JMP          squaresSixteen

squaresFour:
	TESTQ DX, DX
	JLE   squaresDone
	MOVQ  DX, AX
	CMPQ  AX, $4
	JLE   squaresMask
	MOVQ  $4, AX

squaresMask:
	NEGQ       AX
	VMOVUPD    32(R10)(AX*8), Y13
	VMASKMOVPD (DI), Y13, Y0
	VMASKMOVPD (R9), Y13, Y4
	MOVQ       BX, SI
	MOVQ       curve+24(FP), R8
	MOVQ       R13, CX

squaresFourRows:
	VBROADCASTSD (R8), Y8
	VMASKMOVPD   (SI), Y13, Y9
	VSUBPD       Y4, Y9, Y9
	VMULPD       Y8, Y9, Y10
	VMULPD       Y9, Y10, Y10
	VADDPD       Y10, Y0, Y0
	ADDQ         R11, SI
	ADDQ         $8, R8
	DECQ         CX
	JNZ          squaresFourRows
	VMASKMOVPD   Y0, Y13, (DI)
	ADDQ         $32, DI
	ADDQ         $32, R9
	ADDQ         $32, BX
	SUBQ         $4, DX
	JMP          squaresFour

squaresDone:
	VZEROUPPER
	RET

// A NaN changes neither the least nor the largest: the second source of VMINPD is its result then, which is the first
// operand here.
#define RANGE(t, sum, low, high) \
	VADDPD t, sum, sum   \
	VMINPD low, t, low   \
	VMAXPD high, t, high

// func rangeAVX2(sum, low, high, x *float64, n, d int, masks *int64)
TEXT ·rangeAVX2(SB), NOSPLIT, $0-56
	MOVQ  sum+0(FP), DI
	MOVQ  low+8(FP), R8
	MOVQ  high+16(FP), R9
	MOVQ  x+24(FP), BX
	MOVQ  n+32(FP), R13
	MOVQ  d+40(FP), DX
	MOVQ  masks+48(FP), R10
	MOVQ  DX, R11
	SHLQ  $3, R11
	TESTQ R13, R13
	JZ    rangeDone

	// Read the rows in the order of memory, so that the CPU reads ahead; what follows finds them in the cache.
	MOVQ  R13, R12
	IMULQ R11, R12
	ADDQ  BX, R12
	MOVQ  BX, SI

rangeTouch:
	MOVQ (SI), AX
	ADDQ $64, SI
	CMPQ SI, R12
	JLT  rangeTouch

rangeSixteen:
	CMPQ    DX, $16
	JLT     rangeFour
	VMOVUPD (DI), Y0
	VMOVUPD 32(DI), Y1
	VMOVUPD 64(DI), Y2
	VMOVUPD 96(DI), Y3
	VMOVUPD (R8), Y4
	VMOVUPD 32(R8), Y5
	VMOVUPD 64(R8), Y6
	VMOVUPD 96(R8), Y7
	VMOVUPD (R9), Y8
	VMOVUPD 32(R9), Y9
	VMOVUPD 64(R9), Y10
	VMOVUPD 96(R9), Y11
	MOVQ    BX, SI
	MOVQ    R13, CX

rangeSixteenRows:
	VMOVUPD    (SI), Y12
	VMOVUPD    32(SI), Y13
	RANGE(Y12, Y0, Y4, Y8)
	RANGE(Y13, Y1, Y5, Y9)
	VMOVUPD    64(SI), Y12
	VMOVUPD    96(SI), Y13
	RANGE(Y12, Y2, Y6, Y10)
	RANGE(Y13, Y3, Y7, Y11)
	ADDQ       R11, SI
	DECQ       CX
	JNZ        rangeSixteenRows
	VMOVUPD    Y0, (DI)
	VMOVUPD    Y1, 32(DI)
	VMOVUPD    Y2, 64(DI)
	VMOVUPD    Y3, 96(DI)
	VMOVUPD    Y4, (R8)
	VMOVUPD    Y5, 32(R8)
	VMOVUPD    Y6, 64(R8)
	VMOVUPD    Y7, 96(R8)
	VMOVUPD    Y8, (R9)
	VMOVUPD    Y9, 32(R9)
	VMOVUPD    Y10, 64(R9)
	VMOVUPD    Y11, 96(R9)
	ADDQ       $128, DI
	ADDQ       $128, R8
	ADDQ       $128, R9
	ADDQ       $128, BX
	SUBQ       $16, DX
	JMP        rangeSixteen

rangeFour:
	TESTQ DX, DX
	JLE   rangeDone
	MOVQ  DX, AX
	CMPQ  AX, $4
	JLE   rangeMask
	MOVQ  $4, AX

rangeMask:
	NEGQ       AX
	VMOVUPD    32(R10)(AX*8), Y14
	VMASKMOVPD (DI), Y14, Y0
	VMASKMOVPD (R8), Y14, Y4
	VMASKMOVPD (R9), Y14, Y8
	MOVQ       BX, SI
	MOVQ       R13, CX

rangeFourRows:
	VMASKMOVPD (SI), Y14, Y12
	RANGE(Y12, Y0, Y4, Y8)
	ADDQ       R11, SI
	DECQ       CX
	JNZ        rangeFourRows
	VMASKMOVPD Y0, Y14, (DI)
	VMASKMOVPD Y4, Y14, (R8)
	VMASKMOVPD Y8, Y14, (R9)
	ADDQ       $32, DI
	ADDQ       $32, R8
	ADDQ       $32, R9
	ADDQ       $32, BX
	SUBQ       $4, DX
	JMP        rangeFour

rangeDone:
	VZEROUPPER
	RET

// func hessianAVX2(h0, h1, x, curve *float64, n, stride, j, k int, masks *int64)
// Adds Σ (curve·xⱼ)·xₖ for j, j+1 and k to k+15 to h0 and h1, the former's and the latter's places in the Hessian. masks are
// four times four: which of the sixteen are there to be written.
TEXT ·hessianAVX2(SB), NOSPLIT, $0-72
	MOVQ       h0+0(FP), DI
	MOVQ       h1+8(FP), R8
	MOVQ       x+16(FP), SI
	MOVQ       curve+24(FP), R9
	MOVQ       n+32(FP), CX
	MOVQ       stride+40(FP), R11
	MOVQ       j+48(FP), AX
	MOVQ       k+56(FP), BX
	MOVQ       masks+64(FP), R10
	SHLQ       $3, R11
	LEAQ       (SI)(AX*8), AX // x_j of the row
	LEAQ       (SI)(BX*8), BX // x_k of the row
	VMOVUPD    (R10), Y12
	VMASKMOVPD (DI), Y12, Y0
	VMASKMOVPD (R8), Y12, Y4
	VMOVUPD    32(R10), Y12
	VMASKMOVPD 32(DI), Y12, Y1
	VMASKMOVPD 32(R8), Y12, Y5
	VMOVUPD    64(R10), Y12
	VMASKMOVPD 64(DI), Y12, Y2
	VMASKMOVPD 64(R8), Y12, Y6
	VMOVUPD    96(R10), Y12
	VMASKMOVPD 96(DI), Y12, Y3
	VMASKMOVPD 96(R8), Y12, Y7
	TESTQ      CX, CX
	JZ         hessianDone

hessianRows:
	VBROADCASTSD (R9), Y8
	VBROADCASTSD (AX), Y9
	VBROADCASTSD 8(AX), Y10
	VMULPD       Y8, Y9, Y9
	VMULPD       Y8, Y10, Y10
	VMOVUPD      (BX), Y11
	VMOVUPD      32(BX), Y12
	VMULPD       Y9, Y11, Y13
	VMULPD       Y10, Y11, Y14
	VADDPD       Y13, Y0, Y0
	VADDPD       Y14, Y4, Y4
	VMULPD       Y9, Y12, Y13
	VMULPD       Y10, Y12, Y14
	VADDPD       Y13, Y1, Y1
	VADDPD       Y14, Y5, Y5
	VMOVUPD      64(BX), Y11
	VMOVUPD      96(BX), Y12
	VMULPD       Y9, Y11, Y13
	VMULPD       Y10, Y11, Y14
	VADDPD       Y13, Y2, Y2
	VADDPD       Y14, Y6, Y6
	VMULPD       Y9, Y12, Y13
	VMULPD       Y10, Y12, Y14
	VADDPD       Y13, Y3, Y3
	VADDPD       Y14, Y7, Y7
	ADDQ         R11, AX
	ADDQ         R11, BX
	ADDQ         $8, R9
	DECQ         CX
	JNZ          hessianRows

hessianDone:
	VMOVUPD    (R10), Y12
	VMASKMOVPD Y0, Y12, (DI)
	VMASKMOVPD Y4, Y12, (R8)
	VMOVUPD    32(R10), Y12
	VMASKMOVPD Y1, Y12, 32(DI)
	VMASKMOVPD Y5, Y12, 32(R8)
	VMOVUPD    64(R10), Y12
	VMASKMOVPD Y2, Y12, 64(DI)
	VMASKMOVPD Y6, Y12, 64(R8)
	VMOVUPD    96(R10), Y12
	VMASKMOVPD Y3, Y12, 96(DI)
	VMASKMOVPD Y7, Y12, 96(R8)
	VZEROUPPER
	RET
